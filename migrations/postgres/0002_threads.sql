-- The tables of threads, and the path that data takes through them.
--
-- threads   One row a conversation: its owner, and `run`, the turn that is reserved, running or suspended on it. One that is
--           `aside` was made for a single direct call and is not listed. Every
--           input to a thread, and every commit of one of its turns, is judged against this row. `edits` counts changes to rows
--           of its history that turns had left behind: who keeps such rows in mind reads them again.
-- messages  The history, by `seq`: 1, 2, 3, … per thread. `content` is the row's JSON, `category` that of a signal. A deleted
--           one keeps its place, and the turn `kept_for`, which may have read it already, reads it on.
-- deleted_threads  What is left of a thread that was deleted: where its places and chunks had come to, so that a thread that
--           is made under its id later goes on counting there, and `chunk`, which tells subscribers; `key` while what its last
--           subscribers are told is kept.
-- inputs    What was accepted, by the sender's id and key, with where it went: a repeat gets the same answer.
--           A state signal's `version` is its place in its lane.
-- lanes     The tracking of state signals: what a lane's current one is. `copies` are the lane's signals that the model
--           could see when that one was accepted.
-- queue     What waits for the current turn to end, by `place`: turns (`turn`), and what subscribers are shown of signals
--           that were put into the history meanwhile (`shown`).
-- calls     Tool calls that wait for an answer from outside, of turns that are suspended; a settled one stays, so that
--           the same answer to it gets the same acknowledgement.
-- api_keys  Who may ask over HTTP: of each key its digest, and the only resource that it opens.
-- streams   What subscribers see of a thread lies beside the streams of runs: threads and runs are numbered in one
--           sequence, so the key says whose it is. `token` names the append, so that one whose answer was lost is known.
--
-- In: `receive` looks at the thread's row, and in the same transaction begins a turn, adds a signal to the turn that is
-- under way, queues a turn, or adds a message. On: a turn's commits add messages, chunks and calls. Out: the commit that
-- ends a turn hands what it has not taken to a turn that follows, else makes the head of the queue due, else leaves the
-- thread idle.

-- No checks, for the reason given with the tables of runs.

create table threads (
    key bigint primary key,
    namespace text not null,
    id text not null,
    resource text not null,
    title text not null default '',
    metadata bytea not null,
    run bigint,
    agent text,
    last_seq bigint not null default 0,
    last_place bigint not null default 0,
    edits bigint not null default 0,
    aside boolean not null default false,
    created_at bigint not null,
    updated_at bigint not null
) with (fillfactor = 70);

create unique index threads_id on threads (namespace, id);

create index threads_of on threads (namespace, resource, updated_at);

create table messages (
    thread bigint not null,
    seq bigint not null,
    id text not null,
    role text not null,
    category text,
    run bigint,
    created_at bigint not null,
    content bytea not null,
    deleted_at bigint,
    kept_for bigint,
    unique (thread, seq)
);

-- By id first: a message is deleted by its id alone (H10.7), and every other look-up has both. Ids that Aldis makes grow with
-- time, so this index grows at its end for all threads together.
create unique index messages_id on messages (id, thread);

create table deleted_threads (
    namespace text not null,
    id text not null,
    key bigint,
    last_seq bigint not null,
    last_chunk bigint not null,
    chunk bytea not null,
    deleted_at bigint not null,
    primary key (namespace, id)
);

create index deleted_threads_shown on deleted_threads (deleted_at) where key is not null;

create table inputs (
    thread bigint not null,
    id text not null,
    key text,
    digest text not null,
    branch text not null,
    route text not null,
    run text,
    version bigint,
    accepted_at bigint not null,
    unique (thread, id)
);

create index inputs_key on inputs (thread, key) where key is not null;

create table lanes (
    thread bigint not null,
    lane text not null,
    cache_key text not null,
    mode text not null,
    version bigint not null,
    last_signal text not null,
    last_snapshot text,
    updated_at bigint not null,
    copies bytea not null,
    unique (thread, lane)
);

create table queue (
    thread bigint not null,
    place bigint not null,
    kind text not null,
    run bigint,
    input text not null,
    owner text,
    agent text,
    value bytea,
    unique (thread, place)
);

create table calls (
    run bigint not null,
    call text not null,
    thread bigint not null,
    tool text not null,
    value bytea not null,
    since bigint not null,
    expires_at bigint,
    settled bigint not null default 0,
    unique (run, call)
);

create index calls_of on calls (thread);

create index calls_waiting on calls (since) where settled = 0;

create table api_keys (
    id text primary key,
    name text not null,
    resource text,
    digest text not null unique,
    created_at bigint not null,
    revoked_at bigint
);

alter table runs add column thread bigint;

alter table streams add column token bigint;
