// What the peers in JavaScript share: running conversations one after the other, bounded in time, and judging
// our client by its exit status.
import { spawn } from 'node:child_process';

const SECONDS_MAX = 30;

export function equal(got, wanted, what = 'value') {
  const same = Buffer.isBuffer(wanted) ? Buffer.isBuffer(got) && wanted.equals(got) : JSON.stringify(got) === JSON.stringify(wanted);
  if (same) return;
  const short = (v) => (Buffer.isBuffer(v) ? `${v.length} bytes` : String(JSON.stringify(v)).slice(0, 80));
  throw new Error(`${what}: wanted ${short(wanted)}, got ${short(got)}`);
}

export function within(seconds, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// Runs our client against `url` until it ends; wants this exit status, and words on stderr where it is not 0.
export async function judgeClient(url, exits, conversation = Promise.resolve()) {
  const [program, ...words] = process.env.ECHO_CLIENT.split(' ');
  const child = spawn(program, [...words, url], { stdio: ['ignore', 'inherit', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => { said += chunk; });
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const early = ended.then((status) => new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`the client ended early, status ${status}: ${said}`)), 1000).unref();
  }));
  try {
    await within(SECONDS_MAX, Promise.race([conversation, early]), 'the conversation');
    equal(await within(10, ended, 'the end of the client'), exits, 'exit status');
    if (exits !== 0 && said.trim() === '') throw new Error('nothing on stderr says why');
  } finally {
    child.kill('SIGKILL');
  }
}

/// `conversations`: rows of [title, async function]. Ends the process.
export async function report(peer, version, conversations) {
  let passed = 0;
  let failed = 0;
  for (const [title, run] of conversations) {
    try {
      await within(SECONDS_MAX + 15, run(), title);
      console.log(`ok - ${peer} ${title}`);
      passed += 1;
    } catch (error) {
      console.log(`not ok - ${peer} ${title}\n  # ${String(error.message ?? error).replaceAll('\n', '\n  # ')}`);
      failed += 1;
    }
  }
  console.log(`# ${peer} ${version}: ${passed} passed, ${failed} failed`);
  process.exit(failed > 0 || passed === 0 ? 1 : 0);
}
