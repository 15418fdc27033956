// `getWorkflow` of the stock client (section 11), on the refund: a step, an approval, two steps.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Served } from './served.js';

let served, client, refund;
before(async () => {
  served = await Served.start();
  client = served.client();
  refund = client.getWorkflow('refund');
});
after(() => served.finish());

const inputData = { order: 'A-1', amount_cents: 4200, customer: 'ann' };
const resume = { step: 'approval', resumeData: { approved: true, by: 'ann' } };

async function read(stream) {
  const records = [];
  for await (const record of stream) records.push(record);
  return records;
}

test('workflows are listed and described (H11.1)', async () => {
  assert.deepEqual(Object.keys(await client.listWorkflows()), ['refund']);
  const { inputSchema } = await refund.getSchema();
  assert.equal(inputSchema.properties.order.type, 'string');
  await assert.rejects(client.getWorkflow('none').details(), error => error.status === 404);
});

test('startAsync comes back at the approval, resumeAsync with the result (H11.2)', async () => {
  const run = await refund.createRun();
  const rests = await run.startAsync({ inputData });
  assert.equal(rests.status, 'suspended');
  assert.deepEqual(rests.suspended, [['approval']]);
  const ended = await run.resumeAsync(resume);
  assert.equal(ended.status, 'success');
  assert.deepEqual(ended.result, { paid: true, decided_by: 'ann' });
  await assert.rejects(run.resume(resume), error => error.status === 409);
  const shown = await refund.runById(run.runId, { fields: ['result'] });
  assert.deepEqual([shown.status, shown.result], ['success', ended.result]);
});

test('stream tells what it does, resumeStream goes on, and observe tells all of it again (H11.4)', async () => {
  const run = await refund.createRun({ runId: 's-1' });
  const first = await read(await run.stream({ inputData }));
  assert.equal(first[0].type, 'workflow-start');
  assert.equal(first.at(-1).type, 'workflow-step-suspended');
  const rest = await read(await run.resumeStream(resume));
  assert.equal(rest.at(-1).payload.workflowStatus, 'success');
  assert.deepEqual(await read(await run.observe()), [...first, ...rest]);
  assert.deepEqual(await read(await run.observe({ offset: 4 })), [...first, ...rest].slice(4));
});

test('a run is cancelled, and listed so (H11.3)', async () => {
  const run = await refund.createRun({ runId: 'c-1' });
  await run.startAsync({ inputData });
  await run.cancel();
  const records = await read(await run.observe());
  assert.equal(records.at(-1).payload.workflowStatus, 'canceled');
  const { runs, total } = await refund.runs({ status: 'canceled', page: 0, perPage: 10 });
  assert.deepEqual([runs[0].runId, total], ['c-1', 1]);
});
