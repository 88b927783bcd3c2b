// A stand-in of the PSP reference server, to measure ours against: a session is a file; a write reads the whole body and the old
// file, puts the wanted fields of one over those of the other, and writes the whole new file; nothing is synced and nothing is
// replicated. What makes the stand-in faster than a full server: no framework, no checksum, no other routes; a write of a session that
// is not there makes it. Two writers of one session can meet, as with the reference server, and leave a file that is no JSON: a read of
// it fails, but the next write makes it anew, or the load would soon meet errors only.
//
// node reference.mjs PORT FOLDER
import { createServer } from 'node:http';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const [port, folder] = process.argv.slice(2);
const LARGEST = 52_428_800;
const FIELDS = ['name', 'description', 'tags', 'cookies', 'origins', 'indexedDB', 'serviceWorkers', 'browserContext'];
const PATH = /^\/api\/v2\/sessions\/([A-Za-z0-9-]{1,64})$/;

async function read(request) {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > LARGEST) throw Object.assign(new Error('too large'), { status: 413 });
    parts.push(part);
  }
  return JSON.parse(Buffer.concat(parts).toString('utf8'));
}

async function stored(file, orElse) {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT' || orElse !== undefined) return orElse;
    throw error;
  }
}

function made(id, now) {
  return {
    $schema: 'https://psp.dev/schema/v2.json', protocolVersion: '2.0.0', id, name: 'Untitled Session', cookies: [], origins: [],
    browserContext: { userAgent: '', viewport: { width: 1920, height: 1080 } }, source: { type: 'api', captureMethod: 'api' },
    timestamps: { created: now, updated: now, captured: now },
  };
}

async function answer(request) {
  if (request.url === '/health') return [200, { status: 'healthy', uptime: process.uptime(), activeBrowsers: 0 }];
  const id = PATH.exec(request.url)?.[1];
  if (id === undefined) return [404, { error: 'Not found' }];
  const file = join(folder, `${id}.json`);
  if (request.method === 'GET') {
    const session = await stored(file);
    return session === undefined ? [404, { error: 'Session not found' }] : [200, session];
  }
  if (request.method !== 'PUT') return [405, { error: 'Method not allowed' }];
  const body = await read(request);
  const now = new Date().toISOString();
  const session = await stored(file, made(id, now));
  for (const field of FIELDS) session[field] = body[field] ?? session[field];
  session.timestamps.updated = now;
  await writeFile(file, JSON.stringify(session));
  return [200, { id, status: 'updated', session }];
}

await mkdir(folder, { recursive: true });
const server = createServer((request, response) => {
  answer(request)
    .catch((error) => [error.status ?? 500, { error: error.message }])
    .then(([status, value]) => {
      const text = JSON.stringify(value);
      response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(text) });
      response.end(text);
    });
});
server.listen(Number(port), '127.0.0.1');
