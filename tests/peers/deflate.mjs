// A WebSocket server of the package `ws` with compression.
//
// The first line on stdout has the port. The server sends every message back. The query has options of
// the package's extension, such as `serverMaxWindowBits=10`. With the path `/fragments`, an answer
// consists of three fragments, with a ping before each of the last two.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const http = createServer();

const answers = {
  "/echo": (socket, data, binary) => socket.send(data, { binary }),
  "/fragments": (socket, data, binary) => {
    const cut = Math.floor(data.length / 3);
    socket.send(data.subarray(0, cut), { binary, fin: false });
    socket.ping("one");
    socket.send(data.subarray(cut, 2 * cut), { binary, fin: false });
    socket.ping("two");
    socket.send(data.subarray(2 * cut), { binary, fin: true });
  },
};

http.on("upgrade", (request, stream, head) => {
  const url = new URL(request.url, "http://localhost");
  const options = [...url.searchParams].map(([name, value]) => [name, JSON.parse(value)]);
  const perMessageDeflate = { threshold: 0, ...Object.fromEntries(options) };
  const server = new WebSocketServer({ noServer: true, perMessageDeflate });
  server.handleUpgrade(request, stream, head, (socket) => {
    socket.on("message", (data, binary) => answers[url.pathname](socket, data, binary));
    socket.on("error", (error) => process.stderr.write(error.stack + "\n"));
  });
});

http.listen(0, "127.0.0.1", () => {
  process.stdout.write(JSON.stringify({ port: http.address().port }) + "\n");
});

process.stdin.on("end", () => process.exit(0)).resume();
