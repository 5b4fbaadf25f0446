// A WebSocket server of the package `ws`, as a peer of the WebSocket machine.
//
// The first line on stdout has the port; each further line has the close code and the reason that were
// received at the end of a connection. The path selects the behaviour of the server.

import { WebSocketServer } from "ws";

const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: false,
  verifyClient: ({ req }, answer) => answer(req.url !== "/refused", 403, "no"),
});

server.on("listening", () => print({ port: server.address().port }));

server.on("connection", (socket, request) => {
  socket.on("close", (code, reason) => print({ code, reason: reason.toString() }));
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
