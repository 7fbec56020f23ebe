// An echo server on npm's `ws` with permessage-deflate: node ws.mjs PORT shared|takeover|none
// `ws` is the one that tests/interop installs; or set WS to another one's directory.
import { createRequire } from 'node:module';

const home = process.env.WS ?? new URL('../../tests/interop/node_modules/ws', import.meta.url).pathname;
const { WebSocketServer } = createRequire(import.meta.url)(home);
const [port, mode] = process.argv.slice(2);
const alone = mode === 'shared';
const perMessageDeflate = mode === 'none' ? false : {
  threshold: 0,
  serverNoContextTakeover: alone,
  clientNoContextTakeover: alone,
};

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), perMessageDeflate });
server.on('connection', (ws) => {
  ws.on('message', (data, binary) => ws.send(data, { binary }));
});
