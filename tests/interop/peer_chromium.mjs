// Conversations of a headless Chromium with our echo_server. Serves page.html, which talks to the server and
// posts each result back here; nothing drives the browser from outside.
//
//   SERVER_URL=ws://127.0.0.1:PORT [CHROMIUM=chromium] node peer_chromium.mjs
//   SERVER_URL='wss://localhost:PORT ws://localhost:PORT' PKI=DIR BROWSERS_URL=... OPTIONAL_URL=... node peer_chromium.mjs
//   PAGE_URL=https://localhost:PORT/files/page_http.html PKI=DIR node peer_chromium.mjs
//
// With PAGE_URL the page is not ours but that one, which our http_server serves and which talks about HTTP with it.
// With DEFLATE, shared or takeover, the server is to agree on permessage-deflate so.
// With PKI (see pki.sh) the browser, in a home of its own, trusts its authority, and goes to two servers more: one
// that asks all but browsers for a certificate, which it can talk to, and one that asks everybody, which it cannot.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Whole browser, cold start included; a single conversation is bounded by the page.
const SECONDS_MAX = 120;
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-extensions', '--disable-dev-shm-usage', '--no-proxy-server',
];

const page = readFileSync(new URL('page.html', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'wsloop-chromium-'));
const profile = join(home, 'profile');
const { PKI, SERVER_URL = '', PAGE_URL, BROWSERS_URL, OPTIONAL_URL, DEFLATE } = process.env;
let passed = 0;
let failed = 0;
let said = '';

function notOk(title, problem) {
  failed += 1;
  console.log(`not ok - chromium ${title}\n  # ${problem.replaceAll('\n', '\n  # ')}`);
}

function result({ title, problem }) {
  if (problem !== null) return notOk(title, problem);
  passed += 1;
  return console.log(`ok - chromium ${title}`);
}

const server = createServer(async (request, response) => {
  if (request.method === 'GET') {
    const found = request.url.startsWith('/page.html');
    response.writeHead(found ? 200 : 404, { 'Content-Type': 'text/html; charset=utf-8' });
    return response.end(found ? page : '');
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  response.end();
  if (request.url === '/result') return result(JSON.parse(body));
  if (request.url === '/broken') return give_up(`page.html: ${JSON.parse(body)}`);
  const { browser, total } = JSON.parse(body);
  if (passed + failed !== total) notOk('all conversations', `${passed + failed} reported of ${total}`);
  return end(browser.match(/Chrome\/[\d.]+/)?.[0] ?? browser);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');

if (PKI) {
  const db = join(home, '.pki', 'nssdb');
  mkdirSync(db, { recursive: true });
  execFileSync('certutil', ['-d', `sql:${db}`, '-N', '--empty-password']);
  execFileSync('certutil', ['-d', `sql:${db}`, '-A', '-t', 'C,,', '-n', 'ca', '-i', `${PKI}/ca.pem`]);
}
const query = new URLSearchParams(SERVER_URL.split(' ').map((url) => ['url', url]));
if (BROWSERS_URL) query.append('opens', BROWSERS_URL);
if (OPTIONAL_URL) query.append('fails', OPTIONAL_URL);
if (DEFLATE) {
  const shared = ['server_no_context_takeover', 'client_no_context_takeover'];
  query.append('deflate', ['permessage-deflate', ...(DEFLATE === 'shared' ? shared : [])]);
}
const here = `http://127.0.0.1:${server.address().port}`;
const address = PAGE_URL ? `${PAGE_URL}?${new URLSearchParams({ report: here })}` : `${here}/page.html?${query}`;
// A process group of its own: the browser's helpers end with it.
const browser = spawn(process.env.CHROMIUM ?? 'chromium', [...FLAGS, `--user-data-dir=${profile}`, address], { detached: true, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, HOME: home } });
// Without a desktop Chromium complains about the message bus, at length.
browser.stderr.on('data', (chunk) => { said = (said + chunk).split('\n').filter((line) => !line.includes('dbus')).join('\n').slice(-2000); });
browser.on('error', (error) => give_up(`the browser does not start: ${error.message}`));
browser.on('exit', (status) => give_up(`the browser ended early, status ${status}\n${said}`));
setTimeout(() => give_up(`nothing more after ${SECONDS_MAX} s\n${said}`), SECONDS_MAX * 1000);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => give_up(signal));

function give_up(why) {
  notOk('the whole page', why);
  end('?');
}

function end(version) {
  browser.removeAllListeners('exit');
  const exit = () => {
    rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    console.log(`# chromium ${version}: ${passed} passed, ${failed} failed`);
    process.exit(failed > 0 || passed === 0 ? 1 : 0);
  };
  if (!browser.pid || browser.exitCode !== null) return exit();
  browser.on('exit', exit);
  return process.kill(-browser.pid, 'SIGKILL');
}
