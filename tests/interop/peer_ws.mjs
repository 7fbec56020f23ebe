// Conversations with npm's `ws`, as client against our echo_server and as server against our echo_client.
//
//   SERVER_URL=ws://127.0.0.1:PORT ECHO_CLIENT='PROGRAM WORDS' node peer_ws.mjs
//   SERVER_URL='wss://localhost:PORT ws://localhost:PORT' PKI=DIR ... node peer_ws.mjs
//
// With DEFLATE, shared or takeover, both of ours are to agree on permessage-deflate so.
// With several URLs each conversation is had with one after the other. With PKI (see pki.sh) our client is served
// over TLS, and the conversations about TLS are had too: with REQUIRED_URL, OPTIONAL_URL and BROWSERS_URL, servers
// that demand certificates, ask for them, and ask all but browsers.
//
// One line per conversation; status 1 when one is not ok. To add one: a row in `both`, `clientOnly` or
// `serverOnly`; the function gets a `Talk` with our program, returns when all was right, throws otherwise.
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { once } from 'node:events';
import { WebSocket, WebSocketServer } from 'ws';
import { equal, judgeClient, report, within } from './report.mjs';

const MIB = 1 << 20;
const LIMITS = { maxPayload: 64 * MIB };
// Every message is compressed, however short.
const COMPRESSION = process.env.DEFLATE ? { perMessageDeflate: { threshold: 0 } } : {};
const URLS = process.env.SERVER_URL.split(' ');
const { PKI, DEFLATE } = process.env;

const pem = (file) => readFileSync(`${PKI}/${file}`);
const trust = PKI ? { ca: pem('ca.pem') } : {};
const identity = (name) => ({ cert: pem(`${name}.pem`), key: pem(`${name}.key`) });
const only = (version) => ({ minVersion: version, maxVersion: version });
// Over TLS by the address, so that both kinds of names in the certificate are verified by somebody.
const address = (server) => `${PKI ? 'wss' : 'ws'}://127.0.0.1:${server.address().port}/`;

/// A connection with its events in queues, so that a conversation reads top-down.
class Talk {
  constructor(ws) {
    this.ws = ws;
    this.arrived = { message: [], pong: [], close: [] };
    this.waiting = { message: [], pong: [], close: [] };
    ws.on('message', (data, binary) => this.#arrive('message', binary ? data : data.toString()));
    ws.on('pong', (data) => this.#arrive('pong', data));
    ws.on('close', (code, reason) => this.#arrive('close', [code, reason.toString()]));
    ws.on('error', (error) => { this.error = error; });
  }

  #arrive(kind, value) {
    const waiter = this.waiting[kind].shift();
    if (waiter) waiter(value);
    else this.arrived[kind].push(value);
  }

  next(kind) {
    if (this.arrived[kind].length > 0) return Promise.resolve(this.arrived[kind].shift());
    const event = new Promise((resolve) => { this.waiting[kind].push(resolve); });
    return within(20, event, `the next ${kind}`);
  }

  async echoed(message) {
    this.ws.send(message);
    equal(await this.next('message'), message, 'echo');
  }

  async echoedInFragments(pieces, whole, binary) {
    pieces.forEach((piece, i) => this.ws.send(piece, { binary, fin: i === pieces.length - 1 }));
    equal(await this.next('message'), whole, 'echo');
  }

  /// The code comes back as it was sent (RFC 6455 5.5.1), and so does the reason.
  async closed(code, reason = '') {
    const [got, said] = await this.next('close');
    equal([got, said], [code, reason], 'close');
  }
}

const both = [
  ['text and binary', async (talk) => {
    await talk.echoed('hello');
    await talk.echoed('h\u00e9llo w\u00f6rld \u20ac \u{1f600}');
    await talk.echoed(randomBytes(256));
  }],
  ['empty messages', async (talk) => {
    await talk.echoed('');
    await talk.echoed(Buffer.alloc(0));
    await talk.echoed('still here');
  }],
  ['lengths around the steps of the frame header', async (talk) => {
    for (const n of [1, 125, 126, 127, 65535, 65536, 65537]) {
      await talk.echoed(randomBytes(n));
      await talk.echoed('x'.repeat(n));
    }
  }],
  ['16 MiB binary', (talk) => talk.echoed(randomBytes(16 * MIB))],
  ['16 MiB text, two-byte code points', (talk) => talk.echoed('\u00e9'.repeat(8 * MIB))],
  ['fragments: text, binary, empty ones, a code point cut in two', async (talk) => {
    await talk.echoedInFragments(['Hel', '', 'lo'], 'Hello', false);
    await talk.echoedInFragments([Buffer.alloc(0), Buffer.from([0, 255]), Buffer.alloc(0)], Buffer.from([0, 255]), true);
    await talk.echoedInFragments([Buffer.from([0xe2, 0x82]), Buffer.from([0xac])], '\u20ac', false);
  }],
  ['pings between fragments are answered before the end', async (talk) => {
    talk.ws.send('before ', { fin: false });
    talk.ws.ping('one');
    talk.ws.ping('two');
    equal(await talk.next('pong'), Buffer.from('one'), 'pong');
    equal(await talk.next('pong'), Buffer.from('two'), 'pong');
    talk.ws.send('after', { fin: true });
    equal(await talk.next('message'), 'before after', 'echo');
  }],
  ['pings: empty, 125 bytes', async (talk) => {
    for (const payload of [Buffer.alloc(0), randomBytes(125)]) {
      talk.ws.ping(payload);
      equal(await talk.next('pong'), payload, 'pong');
    }
  }],
  ['10000 small messages, in order', async (talk) => {
    for (let i = 0; i < 10000; i += 1) talk.ws.send(`message ${i}`);
    for (let i = 0; i < 10000; i += 1) equal(await talk.next('message'), `message ${i}`, 'echo');
  }],
  ...[[1000, ''], [1000, 'done'], [1001, 'going away'], [3000, 'library'], [4999, `r\u00e9ason ${'x'.repeat(110)}`]]
    .map(([code, reason]) => [`they close with ${code} and a reason of ${Buffer.byteLength(reason)} bytes`, async (talk) => {
      await talk.echoed('goodbye');
      talk.ws.close(code, reason);
      await talk.closed(code, reason);
    }]),
  // RFC 6455 7.1.5: a close frame without a code is reported as 1005, and echoed as it came.
  ['they close without a code', async (talk) => {
    talk.ws.close();
    await talk.closed(1005);
  }],
];

const badText = async (talk) => {
  talk.ws.send(Buffer.from([0x66, 0xed, 0xa0, 0x80]), { binary: false });
  equal((await talk.next('close'))[0], 1007, 'close code');
};
// Octets that `ws` itself would never send.
const raw = (bytes) => async (talk) => {
  talk.ws._socket.write(Buffer.from(bytes));
  equal((await talk.next('close'))[0], 1002, 'close code');
};

const clientOnly = [
  ['ours closes with 1007 on text that is not UTF-8', badText],
  ['ours closes with 1002 on a reserved opcode', raw([0x83, 0x80, 0, 0, 0, 0])],
  ['ours closes with 1002 on a frame that is not masked', raw([0x81, 0x01, 0x61])],
  ['ours closes with 1002 on a reserved bit', raw([0xa1, 0x80, 0, 0, 0, 0])],
  ['a frame in the same segment as the handshake', async (talk) => {
    const { protocol, hostname, port } = new URL(talk.ws.url);
    const socket = protocol === 'wss:'
      ? connectTls({ port: Number(port), host: hostname, servername: hostname, ...trust })
      : connect(Number(port), hostname);
    const key = randomBytes(16).toString('base64');
    socket.write(Buffer.concat([
      Buffer.from(`GET / HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n`
        + `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`),
      Buffer.from([0x82, 0x83, 0, 0, 0, 0, 1, 2, 3]),
    ]));
    let got = Buffer.alloc(0);
    const echo = Buffer.from([0x82, 0x03, 1, 2, 3]);
    const heard = (async () => {
      while (got.indexOf(echo) < 0) got = Buffer.concat([got, (await once(socket, 'data'))[0]]);
    })();
    await within(10, heard, 'the echo').finally(() => socket.destroy());
    equal(got.toString('latin1').startsWith('HTTP/1.1 101 '), true, 'status line');
  }],
  ['50 connections at once', async ({ ws: { url } }) => {
    await Promise.all(Array.from({ length: 50 }, async (_, n) => {
      const talk = await dial(url);
      for (let i = 0; i < 10; i += 1) await talk.echoed(`connection ${n} message ${i}`);
      talk.ws.close(1000);
      await talk.closed(1000);
    }));
  }],
];

const serverOnly = [
  ['ours closes with 1007 on text that is not UTF-8: exit status 1', badText, 1],
  ['ours closes with 1002 on a reserved opcode: exit status 1', raw([0x83, 0]), 1],
  ['ours closes with 1002 on a masked frame: exit status 1', raw([0x81, 0x81, 0, 0, 0, 0, 0x61]), 1],
  ['the server vanishes without a close: exit status 1', async (talk) => talk.ws.terminate(), 1],
  ['a message and the close in one segment', async (talk) => {
    talk.ws._socket.write(Buffer.from([0x81, 0x01, 0x61, 0x88, 0x02, 0x03, 0xe8]));
    equal((await talk.next('close'))[0], 1000, 'close code');
  }, 0],
];

async function dial(url, options = {}) {
  const ws = new WebSocket(url, { handshakeTimeout: 10000, ...LIMITS, ...COMPRESSION, ...trust, ...options });
  const talk = new Talk(ws);
  await within(10, new Promise((resolve, reject) => {
    ws.on('open', resolve);
    ws.on('error', reject);
  }), 'the handshake');
  return talk;
}

/// What was agreed about compression is what was asked for.
function agreed(ws) {
  const { params } = ws._extensions['permessage-deflate'] ?? {};
  const wanted = { undefined: undefined, shared: true, takeover: undefined }[DEFLATE];
  equal(params !== undefined, DEFLATE !== undefined, 'permessage-deflate');
  equal(params?.server_no_context_takeover, wanted, 'server_no_context_takeover');
  equal(params?.client_no_context_takeover, wanted, 'client_no_context_takeover');
}

async function asClient(conversation, url, options) {
  const talk = await dial(url, options);
  try {
    agreed(talk.ws);
    await conversation(talk);
    if (talk.ws.readyState === WebSocket.OPEN) {
      talk.ws.close(1000, 'enough');
      await talk.closed(1000, 'enough');
    }
  } finally {
    talk.ws.terminate();
  }
}

function http(answer, options = {}) {
  return PKI ? createTlsServer({ ...identity('server'), ...options }, answer) : createServer(answer);
}

async function asServer(conversation, exits, options) {
  const server = http(undefined, options);
  const sockets = new WebSocketServer({ server, ...LIMITS, ...COMPRESSION });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const done = new Promise((resolve, reject) => {
    sockets.on('connection', (ws) => {
      const talk = new Talk(ws);
      const whole = async () => {
        agreed(ws);
        await conversation(talk);
        if (ws.readyState !== WebSocket.OPEN) return;
        ws.close(1000, 'enough');
        await talk.closed(1000, 'enough');
      };
      whole().then(resolve, reject);
    });
  });
  try {
    await judgeClient(address(server), exits, done);
  } finally {
    sockets.clients.forEach((ws) => ws.terminate());
    sockets.close();
    server.close();
  }
}

async function refused() {
  const server = http((_, response) => response.end('no websocket here'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await judgeClient(address(server), 1);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const hello = (talk) => talk.echoed('hello');

async function isRefused(url, options, alert) {
  const outcome = await dial(url, options).then(() => 'served', (error) => error.message);
  if (!outcome.includes(`alert ${alert}`)) throw new Error(`wanted the alert ${alert}, got: ${outcome}`);
}

function speaks(version) {
  const { REQUIRED_URL, OPTIONAL_URL, BROWSERS_URL } = process.env;
  const isSpoken = async (talk) => {
    equal(talk.ws._socket.getProtocol(), version, 'version');
    await talk.echoed(randomBytes(MIB));
  };
  const mine = { ...only(version), ...identity('client') };
  const stranger = { ...only(version), ...identity('stranger') };
  return [
    [`client: ${version}`, () => asClient(isSpoken, URLS[0], only(version))],
    [`server: ${version}`, () => asServer(isSpoken, 0, only(version))],
    [`client: ${version}, a certificate where it is demanded`, () => asClient(hello, REQUIRED_URL, mine)],
    [`client: ${version}, none where it is demanded`, () => isRefused(REQUIRED_URL, only(version), 'certificate required')],
    [`client: ${version}, of another authority where it is demanded`, () => isRefused(REQUIRED_URL, stranger, 'unknown ca')],
    ...[['', OPTIONAL_URL], [' of all but browsers', BROWSERS_URL]].flatMap(([whom, url]) => [
      [`client: ${version}, a certificate where it is asked for${whom}`, () => asClient(hello, url, mine)],
      [`client: ${version}, none where it is asked for${whom}`, () => asClient(hello, url, only(version))],
      // It is refused, so it was asked for.
      [`client: ${version}, of another authority where it is asked for${whom}`, () => isRefused(url, stranger, 'unknown ca')],
    ]),
  ];
}

const aboutTls = () => [
  ...['TLSv1.2', 'TLSv1.3'].flatMap(speaks),
  ['client: ws and wss at the same time, 40 connections on one port', async () => {
    await Promise.all(Array.from({ length: 40 }, (_, n) => asClient(
      async (talk) => { for (let i = 0; i < 10; i += 1) await talk.echoed(`connection ${n} message ${i}`); },
      URLS[n % URLS.length],
    )));
  }],
];

const { version } = JSON.parse(readFileSync(new URL('node_modules/ws/package.json', import.meta.url)));
report('ws', version, [
  ...[...both, ...clientOnly].flatMap(([title, talk]) => URLS.map((url) => [
    `client: ${title}${PKI ? ` over ${url.split(':')[0]}` : ''}`, () => asClient(talk, url)])),
  ...[...both, ...serverOnly].map(([title, talk, exits = 0]) => [`server: ${title}`, () => asServer(talk, exits)]),
  ['server: 200 to the handshake: exit status 1', refused],
  ...(PKI ? aboutTls() : []),
]);
