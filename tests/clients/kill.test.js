// SIGKILL in the middle of a stream: the stock client comes back, and no message is lost or doubled.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Served, follow, to } from './served.js';

// Sends until it is acknowledged: the id makes a repeat the same message (T20.4).
async function insist(agent, id, contents) {
  for (;;) {
    try {
      return await agent.sendSignal({ signal: { id, type: 'user', contents }, ...to('t') });
    } catch (error) {
      if (error.status >= 400 && error.status < 500) throw error;
    }
  }
}

test('a server that is killed in the middle of an answer is come back to', async () => {
  const served = await Served.start();
  try {
    const agent = served.client({ backoffMs: 20 }).getAgent('demo');
    const { seen, subscription, read } = await follow(agent, 't', { reconnect: { delayMs: 50 } });
    const first = await insist(agent, 'm1', '/think 1500\n/say first');
    await seen.one('step-start');
    const [, second, third] = await Promise.all([
      served.kill().then(() => served.begin()),
      insist(agent, 'm2', 'second'),
      insist(agent, 'm3', 'third'),
    ]);
    const runs = new Set([first, second, third].map(sent => sent.runId));
    // The run that was under way is shown again from its first chunk (T11.3), and goes on to its end.
    for (const runId of runs) {
      await seen.one(chunk => chunk.type === 'finish' && chunk.runId === runId);
    }
    const idle = await agent.abortThread(to('t'));
    assert.equal(idle.aborted, false);
    subscription.unsubscribe();
    await read;

    const { messages } = await served.client().listThreadMessages('t', { agentId: 'demo' });
    const told = messages.filter(row => row.role === 'signal').map(row => row.id);
    assert.deepEqual([...told].sort(), ['m1', 'm2', 'm3']);
    const said = messages.filter(row => row.role === 'assistant').map(row => row.content.content ?? '').join('\n');
    for (const word of ['first', 'second', 'third']) {
      assert.equal(said.split(word).length - 1, 1, `${word} is answered once: ${said}`);
    }
    // Each run that was shown ends once, and nothing is said after its end.
    for (const runId of runs) {
      const of = seen.chunks.filter(chunk => chunk.runId === runId);
      assert.equal(of.filter(chunk => chunk.type === 'finish').length, 1);
      assert.equal(of.at(-1).type, 'finish');
    }
  } finally {
    await served.finish();
  }
});

test('a cursor goes on after a kill without a gap or a repeat (T11.10)', async () => {
  const served = await Served.start();
  try {
    await served.post('/agents/demo/send-message', { message: '/think 800\n/say done', ...to('t') });
    const chunks = [];
    const read = async last => {
      const after = chunks.at(-1)?.cursor ?? '0';
      const response = await served.post('/agents/demo/threads/subscribe', { threadId: 't', after });
      let text = '';
      const decoder = new TextDecoder();
      for await (const bytes of response.body) {
        text += decoder.decode(bytes, { stream: true });
        const blocks = text.split('\n\n');
        text = blocks.pop();
        for (const block of blocks.filter(block => block.startsWith('data: '))) {
          chunks.push(JSON.parse(block.slice(6)));
          if (chunks.at(-1).type === last) return;
        }
      }
    };
    await read('step-start');
    await served.kill();
    await served.begin();
    await read('finish');
    const cursors = chunks.map(chunk => Number(chunk.cursor));
    assert.deepEqual(cursors, cursors.map((_, n) => n + 1));
    assert.equal(chunks.filter(chunk => chunk.type === 'start').length, 1);
  } finally {
    await served.finish();
  }
});

test('a server that is asked to stop ends its streams and exits well', async () => {
  const served = await Served.start();
  try {
    const agent = served.client().getAgent('demo');
    const { seen, read } = await follow(agent, 't');
    await agent.sendMessage({ message: 'Hello', ...to('t') });
    await seen.one('finish');
    assert.equal(await served.stop(), 0);
    await read;
  } finally {
    await served.finish();
  }
});
