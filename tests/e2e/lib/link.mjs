// A household's link: what goes up is let through no faster than it can be sent.
import { createServer, connect } from 'node:net';

/** One way through the network and the access line. */
const LATENCY_MS = 15;
/** What waits to go up before the sender is made to wait: a router's buffer. */
const BUFFER_MS = 200;

/** A port that leads to `port`, through which all connections together send `bytesPerS` upwards. */
export async function shapedLink(port, bytesPerS) {
  const link = { up: 0, down: 0, open: new Set() };
  /** When the line is free again. */
  let freeAt = 0;
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      link.open.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => {
        link.open.delete(socket);
        // What is on its way still arrives.
        setTimeout(() => (socket === near ? far : near).destroy(), BUFFER_MS + LATENCY_MS);
      });
    }
    near.on('data', (bytes) => {
      link.up += bytes.length;
      const now = performance.now();
      freeAt = Math.max(freeAt, now) + (bytes.length * 1000) / bytesPerS;
      const waitMs = freeAt - now;
      if (waitMs > BUFFER_MS) {
        near.pause();
        setTimeout(() => near.resume(), waitMs - BUFFER_MS);
      }
      setTimeout(() => far.writable && far.write(bytes), waitMs + LATENCY_MS);
    });
    far.on('data', (bytes) => {
      link.down += bytes.length;
      setTimeout(() => near.writable && near.write(bytes), LATENCY_MS);
    });
    near.on('end', () => setTimeout(() => far.end(), Math.max(0, freeAt - performance.now()) + LATENCY_MS));
    far.on('end', () => setTimeout(() => near.end(), LATENCY_MS));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  link.port = server.address().port;
  link.close = () => {
    for (const socket of link.open) socket.destroy();
    return new Promise((done) => server.close(done));
  };
  return link;
}
