// Node's https server, which demands client certificates, for peer_fetch.py; says its port when it listens.
//
//   node server_https.mjs PKI-DIR FILES-DIR
import { createReadStream, readFileSync } from 'node:fs';
import { createServer } from 'node:https';

const [pki, files] = process.argv.slice(2);
const pem = (name) => readFileSync(`${pki}/${name}`);

function answer(request, response) {
  const path = request.url;
  if (path === '/upload') {
    let bytes = 0;
    request.on('data', (piece) => { bytes += piece.length; });
    return request.on('end', () => response.end(`${bytes} bytes, ${request.headers['transfer-encoding'] ?? 'with a length'}\n`));
  }
  if (path === '/moved') return response.writeHead(302, { Location: 'digits.txt' }).end();
  if (path === '/loop') return response.writeHead(302, { Location: '/loop' }).end();
  if (path === '/nothing') return response.writeHead(204).end();
  if (path === '/hints') {
    response.writeEarlyHints({ link: '</digits.txt>; rel=preload' });
    return response.end('hinted\n');
  }
  if (path === '/chunked') {
    response.write('one ');
    return setImmediate(() => { response.addTrailers({ 'X-Sum': '1' }); response.end('two\n'); });
  }
  if (path === '/short') {
    response.writeHead(200, { 'Content-Length': 100 });
    return response.write('short', () => request.socket.destroy());
  }
  return createReadStream(`${files}${path}`).on('open', () => response.writeHead(200)).on('error', () => response.writeHead(404).end()).pipe(response);
}

const server = createServer({ cert: pem('server.pem'), key: pem('server.key'), ca: pem('ca.pem'), requestCert: true, rejectUnauthorized: true }, answer);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
