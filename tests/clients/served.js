// A real server in a folder of its own, which can be killed and started again at the same address.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { MastraClient } from '@mastra/client-js';

const program = process.env.ALDIS;
if (!program) throw new Error('ALDIS names the program to test; `cargo test --test clients` sets it');

export class Served {
  static async start() {
    const served = new Served();
    served.folder = await mkdtemp(join(tmpdir(), 'aldis-clients-'));
    served.listen = '127.0.0.1:0';
    await served.begin();
    return served;
  }

  // Begins the process; it has said where it listens once this is done.
  async begin() {
    const env = { ...process.env, ALDIS_STORE: `sqlite://${join(this.folder, 'aldis.db')}` };
    const stdio = ['ignore', 'pipe', 'inherit'];
    this.process = spawn(program, ['serve', '--json', '--listen', this.listen], { cwd: this.folder, env, stdio });
    this.ended = new Promise(resolve => this.process.once('exit', (code, signal) => resolve({ code, signal })));
    const line = await Promise.race([
      new Promise(resolve => createInterface(this.process.stdout).once('line', resolve)),
      this.ended.then(how => Promise.reject(new Error(`the server has ended: ${JSON.stringify(how)}`))),
    ]);
    const { address, base } = JSON.parse(line);
    this.listen = address;
    this.base = base;
    this.root = `http://${address}`;
  }

  async kill() {
    this.process.kill('SIGKILL');
    await this.ended;
  }

  async stop() {
    this.process.kill('SIGTERM');
    return (await this.ended).code;
  }

  async finish() {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  // The stock client, as people configure it.
  client(options = {}) {
    return new MastraClient({ baseUrl: this.root, ...options });
  }

  async post(path, body, headers = {}) {
    return fetch(`${this.base}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
  }
}

// Chunks as they come, and promises for those that are waited for.
export class Seen {
  chunks = [];
  #waiting = [];

  add = chunk => {
    this.chunks.push(chunk);
    this.#waiting = this.#waiting.filter(({ wanted, resolve }) => !(wanted(chunk) && (resolve(chunk), true)));
  };

  // The first chunk that fits, seen already or still to come.
  async one(wanted) {
    const fits = typeof wanted === 'string' ? chunk => chunk.type === wanted : wanted;
    const found = this.chunks.find(fits);
    return found ?? new Promise(resolve => this.#waiting.push({ wanted: fits, resolve }));
  }

  types() {
    return this.chunks.map(chunk => chunk.type);
  }

  text() {
    return this.chunks.filter(chunk => chunk.type === 'text-delta').map(chunk => chunk.payload.text).join('');
  }
}

// Subscribes and reads; `read` ends with the subscription.
export async function follow(agent, thread, options = {}) {
  const seen = new Seen();
  const subscription = await agent.subscribeToThread({ threadId: thread, resourceId: 'ann' });
  const read = subscription.processDataStream({ onChunk: seen.add, ...options });
  return { seen, subscription, read };
}

export const to = (thread, more = {}) => ({ resourceId: 'ann', threadId: thread, ...more });
