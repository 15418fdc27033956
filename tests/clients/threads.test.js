// The signals page through the stock client: every MUST route of it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { RequestContext } from '@mastra/core/request-context';

import { Served, follow, to } from './served.js';

let served, client, agent;
before(async () => {
  served = await Served.start();
  client = served.client();
  agent = client.getAgent('demo');
});
after(() => served.finish());

test('agents are listed and described (H9.1, H9.2)', async () => {
  const agents = await client.listAgents();
  assert.deepEqual(Object.keys(agents), ['demo']);
  const details = await agent.details(new RequestContext([['lang', 'de']]));
  assert.equal(details.name, 'demo');
  assert.ok(details.tools.add.inputSchema);
});

test('a message is answered on the subscription (H4.2, H6.1)', async () => {
  const { seen, subscription, read } = await follow(agent, 'talk');
  const sent = await agent.sendMessage({ message: 'Hello there', ...to('talk') });
  assert.equal(sent.accepted, true);
  assert.equal(sent.signal.contents, 'Hello there');
  await seen.one('finish');
  assert.equal(seen.text(), 'Hello there');
  assert.ok(seen.chunks.every(chunk => chunk.runId === sent.runId));
  subscription.unsubscribe();
  await read;
});

test('several subscribers see the same (T11.6)', async () => {
  const [one, two] = await Promise.all([follow(agent, 'both'), follow(agent, 'both')]);
  await agent.sendMessage({ message: { contents: 'Hi', attributes: { name: 'Ann' } }, ...to('both') });
  await Promise.all([one.seen.one('finish'), two.seen.one('finish')]);
  assert.deepEqual(one.seen.chunks, two.seen.chunks);
  one.subscription.unsubscribe();
  two.subscription.unsubscribe();
  await Promise.all([one.read, two.read]);
});

test('a queued message has a run of its own (T9.2)', async () => {
  const { seen, subscription, read } = await follow(agent, 'queue');
  const first = await agent.sendMessage({ message: '/think 200\n/say one', ...to('queue') });
  const second = await agent.queueMessage({ message: 'two', ...to('queue') });
  assert.notEqual(first.runId, second.runId);
  await seen.one(chunk => chunk.type === 'finish' && chunk.runId === second.runId);
  assert.equal(seen.text(), 'onetwo');
  subscription.unsubscribe();
  await read;
});

test('a signal is kept on an idle thread and shown as a run of three chunks (H4.7)', async () => {
  const { seen, subscription, read } = await follow(agent, 'note');
  const sent = await agent.sendSignal({
    signal: { type: 'notification', contents: 'note', attributes: { urgent: true } },
    ...to('note', { ifIdle: { behavior: 'persist' } }),
  });
  assert.equal(sent.runId, sent.signal.id);
  await seen.one('finish');
  assert.deepEqual(seen.types(), ['start', 'data-signal', 'finish']);
  assert.equal(seen.chunks[0].payload.messageId, `persisted-signal:${sent.signal.id}`);
  subscription.unsubscribe();
  await read;
});

test('a run is aborted by its subscription and by its thread (H7.5)', async () => {
  const { seen, subscription, read } = await follow(agent, 'abort');
  const sent = await agent.sendMessage({ message: '/think 60000', ...to('abort') });
  await seen.one('step-start');
  assert.equal((await agent.abortThread(to('abort', { expectedRunId: 'another' }))).aborted, false);
  assert.equal(await subscription.abort(), true);
  const abort = await seen.one('abort');
  assert.equal(abort.runId, sent.runId);
  assert.equal((await agent.abortThread(to('abort'))).aborted, false);
  subscription.unsubscribe();
  await read;
});

test('a call waits for approval and goes on (H8.1)', async () => {
  const { seen, subscription, read } = await follow(agent, 'pay');
  await agent.sendMessage({ message: '/call refund {"order":"A-1","cents":100}', ...to('pay') });
  const waits = await seen.one('tool-call-approval');
  const { toolCallId } = waits.payload;
  const answered = await agent.sendToolApproval({ ...to('pay'), toolCallId, approved: true });
  assert.deepEqual(answered, { accepted: true, runId: waits.runId, toolCallId });
  const result = await seen.one('tool-result');
  assert.equal(result.payload.result.order, 'A-1');
  await seen.one('finish');
  subscription.unsubscribe();
  await read;
});

test('an approval by its run streams what follows, and a decline too (H8.3)', async () => {
  const { seen, subscription, read } = await follow(agent, 'pay-2');
  const calls = [];
  for (const answer of ['approveToolCall', 'declineToolCall']) {
    const { runId } = await agent.sendMessage({ message: '/call refund {"order":"A-1","cents":100}', ...to('pay-2') });
    const waits = await seen.one(chunk => chunk.type === 'tool-call-approval' && chunk.runId === runId);
    const stream = await agent[answer]({ runId, toolCallId: waits.payload.toolCallId });
    const types = [];
    await stream.processDataStream({ onChunk: chunk => void types.push(chunk.type) });
    calls.push(types);
    await seen.one(chunk => chunk.type === 'finish' && chunk.runId === runId);
  }
  assert.equal(calls[0][0], 'tool-result');
  assert.equal(calls[1][0], 'tool-output-denied');
  assert.deepEqual(calls.map(types => types.at(-1)), ['finish', 'finish']);
  subscription.unsubscribe();
  await read;
});

test("the client's own tools are run by the client (H7.4, H8.2)", async () => {
  const { seen, subscription, read } = await follow(agent, 'tools');
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
  const sent = await agent.sendMessage({
    message: '/call look {"at":"sky"}',
    ...to('tools', { ifIdle: { streamOptions: { clientTools: { look } } } }),
  });
  const last = await seen.one(chunk => chunk.type === 'finish' && chunk.runId !== sent.runId);
  assert.equal(last.payload.stepResult.reason, 'stop');
  assert.equal(asked.length, 1);
  assert.match(seen.text(), /blue/);
  subscription.unsubscribe();
  await read;
});

test('runs that wait are listed (H8.4)', async () => {
  const { seen, subscription, read } = await follow(agent, 'wait');
  const { runId } = await agent.sendMessage({ message: '/call ask {"question":"Why?"}', ...to('wait') });
  await seen.one('tool-call-suspended');
  const { runs, total } = await agent.listSuspendedRuns({ threadId: 'wait', resourceId: 'ann' });
  assert.equal(total, 1);
  assert.equal(runs[0].runId, runId);
  assert.deepEqual(runs[0].toolCalls[0].suspendPayload, { question: 'Why?' });
  const { toolCallId } = runs[0].toolCalls[0];
  await agent.sendToolApproval({ ...to('wait'), toolCallId, approved: true, resumeData: { because: 'so' } });
  await seen.one('finish');
  assert.equal((await agent.listSuspendedRuns({ threadId: 'wait', resourceId: 'ann' })).total, 0);
  subscription.unsubscribe();
  await read;
});

test('a run is observed after its end (H9.7)', async () => {
  const { seen, subscription, read } = await follow(agent, 'observe');
  const { runId } = await agent.sendMessage({ message: 'Hello', ...to('observe') });
  await seen.one('finish');
  const stream = await agent.observe({ runId });
  const chunks = [];
  await stream.processDataStream({ onChunk: chunk => void chunks.push(chunk) });
  assert.deepEqual(chunks, seen.chunks);
  subscription.unsubscribe();
  await read;
});

test('threads and messages are listed (H10.1, H10.2, H10.6)', async () => {
  for (const message of ['one', 'two', 'three']) {
    const { seen, subscription, read } = await follow(agent, 'list');
    const { runId } = await agent.sendMessage({ message, ...to('list') });
    await seen.one(chunk => chunk.type === 'finish' && chunk.runId === runId);
    subscription.unsubscribe();
    await read;
  }
  const { threads } = await client.listMemoryThreads({ resourceId: 'ann', agentId: 'demo', perPage: 50 });
  assert.ok(threads.some(thread => thread.id === 'list'));
  const thread = client.getMemoryThread({ threadId: 'list', agentId: 'demo' });
  assert.equal((await thread.get()).resourceId, 'ann');
  const page = await thread.listMessages({ perPage: 2 });
  assert.deepEqual(page.messages.map(row => row.role), ['signal', 'assistant']);
  assert.deepEqual([page.total, page.page, page.perPage, page.hasMore], [6, 0, 2, true]);
  const oldest = await client.listThreadMessages('list', {
    agentId: 'demo',
    orderBy: { field: 'createdAt', direction: 'ASC' },
  });
  assert.equal(oldest.messages[0].content.parts[0].text, 'one');
  assert.equal(oldest.messages.length, 6);
});

test('a thread is made, changed and deleted (H10.3 to H10.5)', async () => {
  const made = await client.createMemoryThread({
    threadId: 'kept', resourceId: 'ann', title: 'Rent', metadata: { room: 1 }, agentId: 'demo',
  });
  assert.deepEqual([made.id, made.resourceId, made.title, made.metadata.room], ['kept', 'ann', 'Rent', 1]);
  const thread = client.getMemoryThread({ threadId: 'kept', agentId: 'demo' });
  const changed = await thread.update({ title: 'Flat', metadata: { room: 2 }, resourceId: 'ann' });
  assert.deepEqual([changed.title, changed.metadata.room], ['Flat', 2]);
  assert.deepEqual(await thread.delete(), { result: 'Thread deleted' });
  await assert.rejects(thread.get(), error => error.status === 404);
});

test('messages are deleted by their ids alone (H10.7)', async () => {
  const { seen, subscription, read } = await follow(agent, 'forget');
  const sent = await agent.sendMessage({ message: 'A secret', ...to('forget') });
  await seen.one('finish');
  const thread = client.getMemoryThread({ threadId: 'forget', agentId: 'demo' });
  const told = await thread.deleteMessages(sent.signal.id);
  assert.deepEqual(told, { success: true, message: '1 message deleted successfully' });
  const { messages } = await thread.listMessages();
  assert.deepEqual(messages.map(row => row.role), ['assistant']);
  assert.equal(messages[0].content.metadata.modelId, 'offline');
  subscription.unsubscribe();
  await read;
});
