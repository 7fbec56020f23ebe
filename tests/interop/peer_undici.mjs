// Conversations of npm's `undici` with our http_server, in the clear and over TLS.
//
//   HTTP_URLS='http://localhost:PORT https://localhost:PORT' MUTUAL_URL=https://localhost:PORT PKI=DIR FILES=DIR
//   node peer_undici.mjs
//
// FILES is what the server has below /files/: digits.txt and big.bin.
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { Client, EventSource, FormData, Pool, WebSocket, fetch, request } from 'undici';
import { equal, report } from './report.mjs';

const { FILES, HTTP_URLS, MUTUAL_URL, PKI } = process.env;
const big = readFileSync(`${FILES}/big.bin`);
const undici = JSON.parse(readFileSync(new URL('node_modules/undici/package.json', import.meta.url)));
const identity = { cert: readFileSync(`${PKI}/client.pem`), key: readFileSync(`${PKI}/client.key`) };

// Counts its connections.
function dispatcher(url, kind, options = {}) {
  const { connect, ...others } = options;
  const made = new kind(url, { connect: { ca: readFileSync(`${PKI}/ca.pem`), ...connect }, ...others });
  made.opened = 0;
  made.on('connect', () => { made.opened += 1; });
  return made;
}

// Runs with a client of its own, which has one connection unless told otherwise.
const over = (options, talk, kind = Client) => async (url) => {
  const client = dispatcher(url, kind, options);
  try {
    await talk(client, url);
  } finally {
    await client.destroy();
  }
};

async function text(client, path, options = {}) {
  const { statusCode, body } = await client.request({ path, method: 'GET', ...options });
  return [statusCode, await body.text()];
}

const upload = async (client, body, options = {}) => JSON.parse((await text(client, '/upload', { method: 'POST', body, ...options }))[1]).bytes;

async function* pieces(data) {
  for (let at = 0; at < data.length; at += 60001) yield data.subarray(at, at + 60001);
}

const conversations = [
  ['a page, JSON, and what is not there', over({}, async (client) => {
    equal((await text(client, '/'))[0], 200, 'page');
    equal(await text(client, '/api/connections'), [200, '{"open":0}\n'], 'JSON');
    equal((await text(client, '/nothing'))[0], 404, 'status');
  })],
  ['100 requests on one connection', over({}, async (client) => {
    for (let i = 0; i < 100; i += 1) equal(await text(client, `/files/digits.txt?${i}`), [200, '0123456789'], 'answer');
    equal(client.opened, 1, 'connections');
  })],
  ['1000 requests, pipelined 50 deep on one connection', over({ pipelining: 50 }, async (client) => {
    const paths = Array.from({ length: 1000 }, (_, i) => (i % 3 === 0 ? '/api/connections' : `/files/digits.txt?${i}`));
    const answers = await Promise.all(paths.map((path) => text(client, path)));
    answers.forEach((answer, i) => equal(answer, [200, i % 3 === 0 ? '{"open":0}\n' : '0123456789'], paths[i]));
    equal(client.opened, 1, 'connections');
  })],
  ['500 requests, pipelined over 10 connections', over({ connections: 10, pipelining: 5 }, async (pool) => {
    const answers = await Promise.all(Array.from({ length: 500 }, () => text(pool, '/files/digits.txt')));
    answers.forEach((answer) => equal(answer, [200, '0123456789'], 'answer'));
    equal(pool.opened <= 10, true, 'at most 10 connections');
  }, Pool)],
  ['HEAD, and the next request', over({}, async (client) => {
    // By itself it would give up the connection after HEAD.
    const { statusCode, headers, body } = await client.request({ path: '/files/big.bin', method: 'HEAD', reset: false });
    equal([statusCode, headers['content-length'], await body.text()], [200, String(big.length), ''], 'head');
    equal(await text(client, '/files/digits.txt'), [200, '0123456789'], 'next');
    equal(client.opened, 1, 'connections');
  })],
  ['uploads with a length, in turn on one connection', over({}, async (client) => {
    for (const body of ['', 'x', big, 'y'.repeat(65536)]) equal(await upload(client, body), body.length, 'bytes');
    equal(client.opened, 1, 'connections');
  })],
  ['chunked uploads, in turn on one connection', over({}, async (client) => {
    for (const body of [Buffer.alloc(0), Buffer.from('x'), big]) equal(await upload(client, Readable.from(pieces(body))), body.length, 'bytes');
    equal(client.opened, 1, 'connections');
  })],
  ['Expect: 100-continue', over({}, async (client) => {
    equal(await upload(client, big, { expectContinue: true, headers: { 'content-length': String(big.length) } }), big.length, 'bytes');
  })],
  ['a big download', over({}, async (client) => {
    const { body } = await client.request({ path: '/files/big.bin', method: 'GET' });
    equal(Buffer.from(await body.arrayBuffer()), big, 'body');
  })],
  ['ranges and conditions', over({}, async (client) => {
    equal(await text(client, '/files/digits.txt', { headers: { range: 'bytes=-3' } }), [206, '789'], 'range');
    const { headers, body } = await client.request({ path: '/files/digits.txt', method: 'GET' });
    await body.dump();
    equal(await text(client, '/files/digits.txt', { headers: { 'if-none-match': headers.etag } }), [304, ''], 'condition');
    equal(client.opened, 1, 'connections');
  })],
  ['fetch: a form with a file', over({}, async (client, url) => {
    const form = new FormData();
    form.append('file', new Blob([big]), 'big.bin');
    const response = await fetch(`${url}/upload`, { method: 'POST', body: form, dispatcher: client });
    equal([response.status, (await response.json()).bytes > big.length], [200, true], 'answer');
  })],
  ['fetch: a body that is given up in the middle', over({}, async (client, url) => {
    const control = new AbortController();
    const response = await fetch(`${url}/files/big.bin`, { signal: control.signal, dispatcher: client });
    await response.body.getReader().read();
    control.abort();
    equal(await (await fetch(`${url}/files/digits.txt`, { dispatcher: client })).text(), '0123456789', 'next');
  })],
  ['EventSource', over({}, async (client, url) => {
    const source = new EventSource(`${url}/events`, { dispatcher: client });
    const seen = await new Promise((resolve, reject) => {
      const all = [];
      source.onmessage = ({ data }) => { if (all.push(data) === 2) resolve(all); };
      source.onerror = () => reject(new Error('the events failed'));
    });
    source.close();
    equal(seen, ['tick 1', 'tick 2'], 'events');
  })],
  ['WebSocket beside it', over({}, async (client, url) => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, { dispatcher: client });
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
    socket.send('hello');
    equal((await new Promise((resolve) => { socket.onmessage = resolve; })).data, 'hello', 'echo');
    const closed = new Promise((resolve) => { socket.onclose = resolve; });
    socket.close(1000);
    equal((await closed).code, 1000, 'close code');
  })],
];

const mutual = [
  ['a certificate where it is demanded', over({ connect: identity }, async (client) => {
    for (let i = 0; i < 20; i += 1) equal(await text(client, '/files/digits.txt'), [200, '0123456789'], 'answer');
    equal(await upload(client, Readable.from(pieces(big))), big.length, 'bytes');
    equal(client.opened, 1, 'connections');
  })],
  // In TLS 1.3 the alert comes after the request, and undici tells of the end of the connection first.
  ...[['TLSv1.2', 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED'], ['TLSv1.3', 'UND_ERR_SOCKET']].map(([version, code]) => [
    `no certificate where it is demanded, ${version}`, over({ connect: { minVersion: version, maxVersion: version } }, async (client, url) => {
      const failure = await request(`${url}/`, { dispatcher: client }).catch((error) => error);
      equal(failure.code, code, 'failure');
    })]),
];

await report('undici', undici.version, [
  ...HTTP_URLS.split(' ').flatMap((url) => conversations.map(([title, run]) => [`${url.split(':')[0]}: ${title}`, () => run(url)])),
  ...mutual.map(([title, run]) => [title, () => run(MUTUAL_URL)]),
]);
