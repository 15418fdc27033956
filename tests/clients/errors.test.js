// What the stock client makes of refusals (section 2).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Served, to } from './served.js';

let served, client;
before(async () => {
  served = await Served.start();
  client = served.client();
});
after(() => served.finish());

// What a refusal is to a program that uses the client.
async function refused(asked) {
  const error = await asked.then(() => assert.fail('it was not refused'), error => error);
  return { status: error.status, code: error.body?.code, says: error.body?.error };
}

test('each refusal has its status, and a 4xx is asked once', async () => {
  let asked = 0;
  const counting = served.client({ fetch: (...args) => (asked++, fetch(...args)) });
  const agent = counting.getAgent('demo');
  const unknown = await refused(counting.getAgent('nobody').sendMessage({ message: 'x', ...to('t') }));
  assert.deepEqual(unknown, { status: 404, code: 'agent_unknown', says: 'Agent with id nobody not found' });
  assert.equal((await refused(agent.sendMessage({ message: 7, ...to('t') }))).status, 400);
  assert.equal((await refused(counting.getMemoryThread({ threadId: 'none', agentId: 'demo' }).get())).status, 404);
  const tag = { type: 'reactive', tagName: '1x', contents: 'x' };
  assert.equal((await refused(agent.sendSignal({ signal: tag, ...to('t') }))).code, 'invalid_tag_name');
  assert.equal(asked, 4);
});

test("a neighbour's thread is refused (T2.3)", async () => {
  const agent = client.getAgent('demo');
  await agent.sendMessage({ message: 'mine', ...to('owned') });
  const theirs = { resourceId: 'bob', threadId: 'owned' };
  const says = 'Access denied: thread belongs to a different resource';
  for (const asked of [
    () => agent.sendMessage({ message: 'x', ...theirs }),
    () => agent.queueMessage({ message: 'x', ...theirs }),
    () => agent.sendSignal({ signal: { type: 'reactive', contents: 'x' }, ...theirs }),
    () => agent.subscribeToThread(theirs),
    () => agent.abortThread(theirs),
    () => agent.sendToolApproval({ ...theirs, toolCallId: 'c', approved: true }),
    () => client.listThreadMessages('owned', { agentId: 'demo', resourceId: 'bob' }),
  ]) {
    assert.deepEqual(await refused(asked()), { status: 403, code: 'thread_foreign', says });
  }
});

test('answers to calls that nobody waits for, and other answers than the first (H2.3, T13.10)', async () => {
  const agent = client.getAgent('demo');
  await agent.sendMessage({ message: 'x', ...to('calls') });
  const nobodys = await refused(agent.sendToolApproval({ ...to('calls'), toolCallId: 'c9', approved: true }));
  assert.equal(nobodys.status, 404);
  assert.equal((await refused(agent.approveToolCall({ runId: 'none', toolCallId: 'c9' }))).status, 404);
});

test('a body that is too large is refused before it is read', async () => {
  const agent = client.getAgent('demo');
  const large = await refused(agent.sendMessage({ message: 'x'.repeat(5 * 1024 * 1024), ...to('large') }));
  assert.equal(large.status, 413);
});

test('a page of a browser reads the same stream, with ids (Last-Event-ID)', async () => {
  await served.post('/agents/demo/send-message', { message: 'Hello', ...to('browser') });
  const url = `${served.base}/agents/demo/threads/subscribe?threadId=browser&resourceId=ann&after=0`;
  const stop = new AbortController();
  const response = await fetch(url, { signal: stop.signal });
  let text = '';
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    text += decoder.decode(bytes, { stream: true });
    if (text.includes('"type":"finish"') && text.endsWith('\n\n')) break;
  }
  stop.abort();
  const blocks = text.split('\n\n').filter(block => block.startsWith('id: '));
  assert.ok(blocks.length > 5 && blocks.every(block => /^id: \d+\ndata: \{.*\}$/.test(block)), text);
});
