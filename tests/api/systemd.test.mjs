// The server as a service: sockets that somebody else bound, what it tells the service manager, the watchdog.
// tests/support/systemd.py plays the manager.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startServer, until } from '../support/server.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const manager = join(here, '../support/systemd.py');

// What the manager heard so far.
const told = (server) => server.logText.split('\n').filter((l) => l.startsWith('{')).map((l) => JSON.parse(l));
const notices = (server) => told(server).filter((l) => l.notify).map((l) => l.notify);

// The port is only known once the manager has bound it.
async function startService(t, options, more = {}) {
  let ports = [];
  const server = await startServer(t, {
    ...more,
    under: ['/usr/bin/env', 'python3', manager, ...options],
    prepare: (s) => {
      const original = s.answersHealth.bind(s);
      s.answersHealth = async () => {
        ports = (await until('the sockets are bound', () => told(s).find((l) => l.ports))).ports;
        if (ports.length) Object.assign(s, { port: ports[0], base: `http://127.0.0.1:${ports[0]}` });
        await original();
      };
    },
  });
  return Object.assign(server, { ports });
}

test('sockets of the service manager are served on, and it is told what happens', async (t) => {
  const server = await startService(t, ['--sockets', '2']);
  assert.equal((await fetch(`http://127.0.0.1:${server.ports[0]}/health`)).status, 200);
  assert.equal((await fetch(`http://[::1]:${server.ports[1]}/health`)).status, 200);
  await server.logged(new RegExp(`Starting Orchestrator on port ${server.ports[0]}\\.\\.\\. \\(2 sockets from systemd`));
  await until('it serves', () => notices(server).some((n) => n.startsWith('STATUS=Serving on port')));
  assert.equal(notices(server)[0], 'READY=1\nSTATUS=Loading models');
  const { pid } = told(server).find((l) => l.pid);
  process.kill(pid, 'SIGTERM');
  const end = await until('it ends', () => told(server).find((l) => l.exit !== undefined));
  assert.equal(end.exit, 0);
  assert.ok(notices(server).some((n) => n.startsWith('STOPPING=1')));
});

test('the workers inherit neither sockets nor the manager', async (t) => {
  const server = await startService(t, ['--sockets', '1', '--watchdog', '10000000']);
  const { pid } = await server.worker('llm');
  const environment = execFileSync('cat', [`/proc/${pid}/environ`], { encoding: 'latin1' });
  assert.doesNotMatch(environment, /LISTEN_|NOTIFY_SOCKET|WATCHDOG_/);
  const links = execFileSync('ls', ['-l', `/proc/${pid}/fd`], { encoding: 'utf8' });
  const inode = execFileSync('sh', ['-c', `readlink /proc/${(told(server).find((l) => l.pid)).pid}/fd/3`], { encoding: 'utf8' }).trim();
  assert.match(inode, /^socket:/);
  assert.ok(!links.includes(inode), 'the listening socket is open in the worker');
});

test('the watchdog is fed as long as the loop turns, and not when it hangs', async (t) => {
  const server = await startService(t, ['--watchdog', '200000', '--abstract']);
  const fed = () => notices(server).filter((n) => n === 'WATCHDOG=1').length;
  await until('it is fed three times', () => fed() >= 3);
  const { pid } = told(server).find((l) => l.pid);
  process.kill(pid, 'SIGSTOP');
  await new Promise((done) => setTimeout(done, 300));
  const before = fed();
  await new Promise((done) => setTimeout(done, 600));
  assert.equal(fed(), before);
  process.kill(pid, 'SIGCONT');
  await until('it is fed again', () => fed() > before);
});

test('a socket that is none for HTTP is one sentence', () => {
  const run = spawnSync('python3', [manager, '--sockets', '1', '--udp', join(process.env.MYSTI_BIN ?? join(here, '../../build/bin'), 'mysti_server'),
    '--home', '/tmp/mysti-no-home', '--sd-port', '0', '--llm-port', '0'], { encoding: 'utf8' });
  assert.match(run.stderr, /descriptor 3 is no TCP socket: only those are served on/);
  assert.match(run.stdout, /"exit": 1/);
});

test('without a service manager nothing of it shows', async (t) => {
  const server = await startServer(t, { env: { NOTIFY_SOCKET: 'not a path', LISTEN_PID: '1', LISTEN_FDS: '3', WATCHDOG_USEC: 'soon' } });
  assert.equal((await server.get('/health')).status, 200);
  assert.doesNotMatch(server.logText, /systemd/);
});

test('the unit files are what systemd takes', (t) => {
  const verify = spawnSync('systemd-analyze', ['verify', '--recursive-errors=no', join(here, '../../packaging/mysti.service'), join(here, '../../packaging/mysti.socket')],
    { encoding: 'utf8' });
  if (verify.error) return t.skip('systemd-analyze is not here');
  const complaints = verify.stderr.split('\n').filter((l) => /mysti\.(service|socket)/.test(l) && !/not executable|Command \/usr/.test(l));
  assert.deepEqual(complaints, []);
});
