-- The tables of runs, and the path that data takes through them.
--
-- runs         One row a run: what the outside calls it, how it stands, who has it. Every write to a run is judged
--              against its row: `fence` (grows when the owner changes), `head` (the journal's last line) and
--              `signals_accepted`. `latest` marks the run that its id names; earlier runs of the id keep their rows.
--              `wake_at` is the time from which a due or waiting run may be claimed; without it, nobody claims it.
-- journal      What happened in a run, line by line: 1, 2, 3, … without gaps, never changed. `payload` is the line's JSON.
-- signals      What was accepted for a run, by `ordinal`. A taken one stays, without its payload, so that the sender's
--              `id` is known for as long as the run is kept.
-- published    The values that a run published, the latest of each name.
-- replies      A run's answers to updates, by the update's id; the first one stays.
-- streams      Values that a run's bodies wrote for watchers, by `place`: 1, 2, 3, … per stream.
-- workers      Worker processes and until when each has its runs. `knows` is a JSON array of `name v1`.
-- declared     Registered workflows and their schemas, so that any process can check a start or a signal.
-- idempotency  Keys under which a start is done once; kept until `expires_at`, or while the run is open if that is null.
-- counters     Numbers that are handed out in blocks: keys of runs.
--
-- In: `start` inserts a run that is due, or the engine's first commit inserts one that it already owns; `accept` adds
-- a signal and makes a waiting run due. `claim` gives due runs to a worker; `history` reads row, journal and untaken
-- signals. On: `commit` adds lines and moves the row, in one transaction with what the lines say (signals taken, values
-- published, replies, stream values). Out: the commit that closes a run is its last; its rows are read until retention
-- removes them.
--
-- Times are milliseconds since 1970-01-01T00:00:00Z. The twin in migrations/sqlite has the same tables.

-- One check only: Postgres prepares every check of a table anew for each statement that writes to it, which for the
-- ones that the twin has would cost more than the write of a row. What belongs to which status is checked when a row is
-- read. A row changes with every commit, so pages keep room for its next version.
create table runs (
    key bigint primary key,
    namespace text not null,
    id text not null,
    latest bigint not null default 1,
    workflow text not null,
    version bigint not null,
    status text not null
        check (status in ('due', 'running', 'waiting', 'blocked', 'completed', 'failed', 'cancelled', 'terminated')),
    wake_at bigint,
    worker bigint,
    fence bigint not null,
    claim bigint,
    head bigint not null,
    signals_accepted bigint not null default 0,
    signals_pending bigint not null default 0,
    block_code text,
    block_text text,
    block_build text,
    closed_at bigint,
    created_at bigint not null,
    updated_at bigint not null
) with (fillfactor = 70);

create unique index runs_latest on runs (namespace, id) where latest = 1;

create index runs_claimable on runs (wake_at) where status in ('due', 'waiting') and wake_at is not null;

create index runs_owned on runs (worker) where worker is not null;

create index runs_blocked on runs (workflow, version) where status = 'blocked';

-- New lines are appended, and only the narrow index is written out of order.
create table journal (
    run bigint not null,
    seq bigint not null,
    kind text not null,
    version bigint not null,
    at bigint not null,
    payload bytea not null,
    unique (run, seq)
);

create table signals (
    run bigint not null,
    ordinal bigint not null,
    kind text not null check (kind in ('signal', 'update', 'cancel')),
    name text not null,
    id text not null,
    payload bytea,
    accepted_at bigint not null,
    taken bigint not null default 0,
    unique (run, id)
);

create unique index signals_pending on signals (run, ordinal) where taken = 0;

create table published (
    run bigint not null,
    name text not null,
    value bytea not null,
    primary key (run, name)
);

create table replies (
    run bigint not null,
    id text not null,
    value bytea not null,
    primary key (run, id)
);

create table streams (
    run bigint not null,
    stream text not null,
    place bigint not null,
    part text not null,
    at bigint not null,
    value bytea not null,
    unique (run, stream, place)
);

create table workers (
    key bigint generated always as identity primary key,
    name text not null,
    build text not null,
    knows text not null,
    lease_until bigint not null
);

create table declared (
    workflow text not null,
    version bigint not null,
    input text not null,
    output text not null,
    signals text not null,
    declared_at bigint not null,
    primary key (workflow, version)
);

create table idempotency (
    namespace text not null,
    key text not null,
    run bigint not null,
    expires_at bigint,
    primary key (namespace, key)
);

create index idempotency_run on idempotency (run);

create table counters (
    name text primary key,
    value bigint not null
);

insert into counters (name, value) values ('runs', 0);
