// A real browser's login survives the loss of a node.
//
//   node login_survives.mjs PATH-OF-PSPD
//
// Chromium logs in to a small site that keeps the login in a cookie, in localStorage and in IndexedDB. Its
// storageState is stored through node 0 of a fresh three-node cluster; the leader of the session's shard is killed
// with SIGKILL; another node returns it; a new browser starts from it and is logged in. The storageState that comes
// back, and the one that the new browser gives, equal the first as JSON. Prints what it did; exits non-zero at the
// first thing that is not so. Needs Chromium (CHROMIUM=path names another than /usr/bin/chromium).

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const pspd = process.argv[2];
assert.ok(pspd, 'usage: node login_survives.mjs PATH-OF-PSPD');
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const started = performance.now();
const say = (text) => console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}`);

const ADMIN_OFFSET = 100;
const PEER_OFFSET = 200;
const LIMIT_MS = 60_000;

/** Asks until the answer is truthy, within a limit. */
async function until(what, ask) {
  const end = performance.now() + LIMIT_MS;
  let last;
  while (performance.now() < end) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`not within ${LIMIT_MS} ms: ${what}`, { cause: last });
}

/** Whether nothing listens on this port. */
async function isFree(port) {
  const server = createTcpServer();
  const free = await new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => resolve(true));
  });
  if (free) await new Promise((resolve) => server.close(resolve));
  return free;
}

/** A port P such that P to P+2, and the same 100 and 200 above, are free. */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const wanted = [0, 1, 2].flatMap((i) => [0, ADMIN_OFFSET, PEER_OFFSET].map((offset) => port + i + offset));
    if ((await Promise.all(wanted.map(isFree))).every(Boolean)) return port;
  }
}

const PAGE = `<!doctype html><title>site</title><h1 id="who">...</h1><script>
const open = () => new Promise((resolve, reject) => {
  const request = indexedDB.open('accounts', 3);
  request.onupgradeneeded = () => {
    const people = request.result.createObjectStore('people', { keyPath: 'id' });
    people.createIndex('byName', ['name', 'when'], { unique: false });
    request.result.createObjectStore('notes', { autoIncrement: true });
  };
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
const done = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = resolve;
  transaction.onerror = () => reject(transaction.error);
});
async function login() {
  await fetch('/login', { method: 'POST' });
  localStorage.setItem('token', 'local \\u00e9 \\ud83d\\ude00 "quoted"');
  const database = await open();
  const transaction = database.transaction(['people', 'notes'], 'readwrite');
  transaction.objectStore('people').put({ id: 1, name: 'Ada', when: new Date(0), bytes: new Uint8Array([1, 2, 3]), big: 10n, nan: NaN });
  transaction.objectStore('notes').add('plain');
  transaction.objectStore('notes').add({ nested: [1, null, { deep: true }] });
  await done(transaction);
  database.close();
}
async function whoami() {
  const cookie = await (await fetch('/whoami')).text();
  const local = localStorage.getItem('token');
  const database = await open();
  const transaction = database.transaction(['people', 'notes']);
  const get = (request) => new Promise((resolve) => { request.onsuccess = () => resolve(request.result); });
  const ada = await get(transaction.objectStore('people').get(1));
  const notes = await get(transaction.objectStore('notes').count());
  database.close();
  return { cookie, local, name: ada?.name, when: ada?.when?.getTime(), bytes: ada && [...ada.bytes], big: ada?.big?.toString(), nan: Number.isNaN(ada?.nan), notes };
}
</script>`;

/** The site: a login is a cookie that the server made. */
async function startSite() {
  const secret = Math.random().toString(36).slice(2);
  const server = createServer((request, response) => {
    if (request.url === '/login') {
      const month = new Date(Date.now() + 30 * 86_400_000).toUTCString();
      response.setHeader('Set-Cookie', [`login=${secret}; Path=/; HttpOnly; SameSite=Lax; Expires=${month}`, 'theme=dark; Path=/']);
      response.end('in');
    } else if (request.url === '/whoami') {
      response.end(request.headers.cookie?.includes(`login=${secret}`) ? 'logged in' : 'stranger');
    } else {
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end(PAGE);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${server.address().port}/` };
}

const LOGGED_IN = {
  cookie: 'logged in',
  local: 'local \u00e9 \u{1f600} "quoted"',
  name: 'Ada',
  when: 0,
  bytes: [1, 2, 3],
  big: '10',
  nan: true,
  notes: 2,
};

/** A browser of its own, with this state if there is one; its page, and a way to look at its state. */
async function browse(url, storageState) {
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  const context = await browser.newContext({ storageState });
  const page = await context.newPage();
  await page.goto(url);
  return { browser, page, state: () => context.storageState({ indexedDB: true }) };
}

/** What runs; ended in the reverse order, also when the test fails. */
const cleanup = [];

async function startCluster() {
  const folder = await mkdtemp(join(tmpdir(), 'psp-browser-'));
  cleanup.push(() => rm(folder, { recursive: true, force: true }));
  const port = await freePort();
  const dev = spawn(pspd, ['dev', '--nodes', '3', '--data', folder, '--port', String(port)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = once(dev, 'exit');
  cleanup.push(async () => {
    dev.kill('SIGTERM');
    await ended;
  });
  const record = await until('the cluster is ready', async () => {
    assert.equal(dev.exitCode, null, 'pspd dev ended');
    return JSON.parse(await readFile(join(folder, 'dev.json'), 'utf8'));
  });
  return { ...record, folder };
}

/** The position of the node that leads the group with this slot, as its own report says. */
async function leaderOf(cluster, slot) {
  return until('the shard has a leader', async () => {
    for (const node of cluster.nodes) {
      const report = await (await fetch(`${node.admin}/admin/v1/cluster`)).json();
      const group = report.groups.find(({ slots }) => slots && slots[0] <= slot && slot < slots[1]);
      if (group?.leader !== null && group?.leader === report.node) return node;
    }
    return undefined;
  });
}

/** The slot in a session's id: fourteen bits after ten of the region. */
const slotOf = (id) => parseInt(id.replaceAll('-', '').slice(0, 6), 16) & 0x3fff;

async function run() {
  const site = await startSite();
  cleanup.push(() => site.server.close());
  const cluster = await startCluster();
  say(`cluster of ${cluster.nodes.length} nodes is ready`);
  const headers = { Authorization: `Bearer ${cluster.api_key}`, 'Content-Type': 'application/json' };
  const sessions = (node) => `${node.http}/api/v2/sessions`;

  const first = await browse(site.url);
  cleanup.push(() => first.browser.close());
  assert.equal((await first.page.evaluate('whoami()')).cookie, 'stranger');
  await first.page.evaluate('login()');
  assert.deepEqual(await first.page.evaluate('whoami()'), LOGGED_IN);
  const before = await first.state();
  await first.browser.close();
  say(`Chromium ${first.browser.version()} is logged in: ${before.cookies.length} cookies, ${JSON.stringify(before).length} bytes of state`);

  const created = await fetch(`${sessions(cluster.nodes[0])}?format=playwright`, { method: 'POST', headers, body: JSON.stringify(before) });
  assert.equal(created.status, 201, await created.clone().text());
  const { id } = await created.json();
  say(`stored through node 0 as ${id}, ETag ${created.headers.get('etag')}`);

  const leader = await leaderOf(cluster, slotOf(id));
  process.kill(leader.pid, 'SIGKILL');
  const killed = performance.now();
  const other = cluster.nodes.find((node) => node.id !== leader.id && node.id !== 0) ?? cluster.nodes.find((node) => node.id !== leader.id);
  const response = await fetch(`${sessions(other)}/${id}?format=playwright`, { headers });
  assert.equal(response.status, 200, await response.clone().text());
  const after = await response.json();
  say(`leader, node ${leader.id}, is killed; node ${other.id} returned it ${(performance.now() - killed).toFixed(0)} ms later, first try`);
  assert.deepEqual(after, before);

  const second = await browse(site.url, after);
  cleanup.push(() => second.browser.close());
  assert.deepEqual(await second.page.evaluate('whoami()'), LOGGED_IN);
  assert.deepEqual(await second.state(), before);
  say('a new browser is logged in, and its storageState equals the first');
}

let failed = false;
try {
  await run();
} catch (error) {
  failed = true;
  console.error(error);
}
for (const end of cleanup.reverse()) {
  try {
    await end();
  } catch (error) {
    failed = true;
    console.error(error);
  }
}
say(failed ? 'FAILED' : 'passed');
process.exitCode = failed ? 1 : 0;
