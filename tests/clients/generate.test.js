// `generate` and `stream` of the stock client (section 9).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Seen, Served, follow } from './served.js';

let served, client, agent;
before(async () => {
  served = await Served.start();
  client = served.client();
  agent = client.getAgent('demo');
});
after(() => served.finish());

const on = (thread, more = {}) => ({ memory: { thread, resource: 'ann' }, ...more });

const rows = async thread => (await client.getMemoryThread({ threadId: thread, agentId: 'demo' }).listMessages()).messages;

// Reads a stream to its end.
async function read(response) {
  const seen = new Seen();
  await response.processDataStream({ onChunk: seen.add });
  return seen;
}

// A tool that the client runs, and what it was asked.
function looking() {
  const asked = [];
  const look = {
    id: 'look',
    description: 'Looks at something.',
    inputSchema: { type: 'object', properties: { at: { type: 'string' } } },
    execute: async input => {
      asked.push(input);
      return { colour: 'blue' };
    },
  };
  return { asked, clientTools: { look } };
}

test('generate gives the whole answer (H9.3, H9.4)', async () => {
  const answer = await agent.generate('/call add {"a":1,"b":2}', on('g-1'));
  assert.equal(answer.text, 'add answered 3');
  assert.equal(answer.finishReason, 'stop');
  assert.ok(answer.usage.totalTokens > 0);
  assert.equal(answer.toolResults[0].payload.result, 3);
  assert.deepEqual((await rows('g-1')).map(row => row.role), ['user', 'assistant']);
});

test('generate takes messages in their usual forms, and without a thread (H9.5)', async () => {
  const parts = [{ type: 'text', text: 'two' }];
  const answer = await agent.generate(['one', { role: 'user', content: parts }], { instructions: 'Echo.', maxSteps: 2 });
  assert.equal(answer.text, 'one\ntwo');
  const { threads } = await client.listMemoryThreads({ resourceId: 'nobody' });
  assert.deepEqual(threads, []);
});

test('stream gives chunks as they come, without an echo (H9.6)', async () => {
  const { seen: others, subscription, read: reading } = await follow(agent, 's-1');
  const seen = await read(await agent.stream('Hello there', on('s-1')));
  assert.equal(seen.text(), 'Hello there');
  assert.equal(seen.types()[0], 'start');
  assert.equal(seen.types().at(-1), 'finish');
  assert.ok(!seen.types().includes('data-user-message'));
  // Who watches the thread sees the same run.
  const { runId } = await others.one('finish');
  assert.equal(runId, seen.chunks[0].runId);
  subscription.unsubscribe();
  await reading;
});

for (const [name, memory] of [['on a thread', on('c-1').memory], ['without a thread', undefined]]) {
  test(`generate has the client's own tools run, ${name} (H9.3)`, async () => {
    const { asked, clientTools } = looking();
    // What goes on without a thread needs the messages as a list: the client leaves a bare text out.
    const answer = await agent.generate(['/call look {"at":"sky"}'], { clientTools, ...(memory && { memory }) });
    assert.deepEqual(asked, [{ at: 'sky' }]);
    assert.equal(answer.text, 'look answered {"colour":"blue"}');
    assert.equal(answer.finishReason, 'stop');
  });

  test(`stream has the client's own tools run, ${name} (H9.6)`, async () => {
    const { asked, clientTools } = looking();
    const thread = memory && { ...memory, thread: 'c-2' };
    const seen = await read(await agent.stream(['/call look {"at":"sea"}'], { clientTools, ...(thread && { memory: thread }) }));
    assert.deepEqual(asked, [{ at: 'sea' }]);
    assert.deepEqual(seen.types().filter(type => type === 'finish'), ['finish', 'finish']);
    assert.match(seen.text(), /look answered \{"colour":"blue"\}/);
  });
}

test('an answer of a form that was asked for (H9.5)', async () => {
  const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] };
  const answer = await agent.generate('/say {"ok":true}', on('o-1', { structuredOutput: { schema } }));
  assert.deepEqual(answer.object, { ok: true });
  const seen = await read(await agent.stream('/say {"ok":false}', on('o-1', { structuredOutput: { schema } })));
  assert.deepEqual((await seen.one('object-result')).object, { ok: false });
});

test('a call that needs approval is told and goes on by its run (H8.3, H9.4)', async () => {
  const answer = await agent.generate('/call add {"a":1,"b":2}', { requireToolApproval: true });
  assert.equal(answer.finishReason, 'suspended');
  const { toolCallId } = answer.suspendPayload;
  const seen = await read(await agent.approveToolCall({ runId: answer.runId, toolCallId }));
  assert.equal(seen.types()[0], 'tool-result');
  assert.equal(seen.text(), 'add answered 3');
});

test('a refusal is thrown once and not tried again (H1.7, H2.1)', async () => {
  await agent.generate('Hello', on('mine'));
  const theirs = { memory: { thread: 'mine', resource: 'bob' } };
  await assert.rejects(agent.generate('Hello', theirs), error => error.status === 403);
  await assert.rejects(agent.generate([{ role: 'robot', content: '' }]), error => error.status === 400);
  assert.equal((await rows('mine')).length, 2);
});

test('a caller that goes away stops nothing (H3.7)', async () => {
  const gone = new AbortController();
  const { seen, subscription, read: reading } = await follow(agent, 'gone');
  const asking = agent.generate('/think 300\n/say all the same', on('gone', { abortSignal: gone.signal }));
  await seen.one('step-start');
  gone.abort();
  await assert.rejects(asking);
  const finish = await seen.one('finish');
  assert.equal(finish.payload.stepResult.reason, 'stop');
  assert.equal(seen.text(), 'all the same');
  subscription.unsubscribe();
  await reading;
});
