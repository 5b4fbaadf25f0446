// A WebSocket server of the package `ws`, for the WebSocket machine to talk to.
//
// The first line on stdout has the port; every other one is how a connection ended there: the code and
// the reason that were received. The path selects what the server does.

import { WebSocketServer } from "ws";

const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: false,
  verifyClient: ({ req }, answer) => answer(req.url !== "/refused", 403, "no"),
});

server.on("listening", () => say({ port: server.address().port }));

server.on("connection", (socket, request) => {
  socket.on("close", (code, reason) => say({ code, reason: reason.toString() }));
  socket.on("error", () => {});
  const paths = {
    "/echo": () => socket.on("message", (data, binary) => socket.send(data, { binary })),
    // With the answer to the upgrade, before anything was received.
    "/early": () => socket.send("early"),
    "/pings": () => {
      socket.on("pong", (data) => socket.send("pong " + data));
      ["a", "b", "c"].forEach((data) => socket.ping(data));
    },
    "/fragments": () => {
      socket.send("fr\u00e4g", { fin: false });
      socket.ping("between");
      socket.send("", { fin: false });
      socket.send("ments", { fin: true });
    },
    "/close": () => socket.close(4001, "n\u00e4h"),
    // A text frame with a reserved bit.
    "/violation": () => socket._socket.write(Buffer.from([0xc1, 0x00])),
  };
  (paths[request.url] ?? (() => socket.terminate()))();
});

process.stdin.on("end", () => process.exit(0)).resume();
