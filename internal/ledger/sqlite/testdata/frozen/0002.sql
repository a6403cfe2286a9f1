CREATE TABLE delivery (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  platform   TEXT    NOT NULL,
  chat_id    TEXT    NOT NULL,
  thread_id  TEXT    NOT NULL,
  state      TEXT    NOT NULL,
  attempt    INTEGER NOT NULL DEFAULT 0,
  process    INTEGER,            -- who sends it
  turn_id    INTEGER,
  inbound_id INTEGER,
  run_id     INTEGER,
  kind       TEXT    NOT NULL,
  part       TEXT    NOT NULL,
  edit       TEXT    NOT NULL,
  nonce      TEXT    NOT NULL,
  receipt    TEXT    NOT NULL DEFAULT '',
  reason     TEXT    NOT NULL DEFAULT '',
  uncertain  INTEGER NOT NULL DEFAULT 0,
  not_before INTEGER,
  next_at    INTEGER,
  created_at INTEGER NOT NULL,
  sent_at    INTEGER,
  ended_at   INTEGER             -- sent or dead
);

CREATE TABLE inbound (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  platform    TEXT    NOT NULL,
  account     TEXT    NOT NULL,
  event_id    TEXT    NOT NULL,
  chat_id     TEXT    NOT NULL,
  thread_id   TEXT    NOT NULL,
  session_key TEXT    NOT NULL,
  state       TEXT    NOT NULL,
  command     INTEGER NOT NULL, -- a slash command or a pressed button
  turn_id     INTEGER,
  text        TEXT    NOT NULL,
  reply_text  TEXT    NOT NULL,
  body        TEXT    NOT NULL, -- who wrote it, attachments
  sent_at     INTEGER,
  received_at INTEGER,
  ended_at    INTEGER,
  UNIQUE (platform, account, event_id)
);

CREATE TABLE job (
  id         TEXT PRIMARY KEY,
  name       TEXT    NOT NULL,
  enabled    INTEGER NOT NULL,
  definition TEXT    NOT NULL,
  next_at    INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  version    INTEGER NOT NULL
);

CREATE TABLE lease (
  name    TEXT PRIMARY KEY,
  fence   INTEGER NOT NULL,
  process INTEGER
) WITHOUT ROWID;

CREATE TABLE message (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  session INTEGER NOT NULL,
  status  INTEGER NOT NULL DEFAULT 1,
  place   INTEGER,
  role    TEXT    NOT NULL,
  content TEXT    NOT NULL,
  body    TEXT,
  at      INTEGER
);

CREATE VIRTUAL TABLE message_trigrams USING fts5 (
  content, content = '', contentless_delete = 1,
  tokenize = 'trigram'
);

CREATE VIRTUAL TABLE message_words USING fts5 (
  content, content = '', contentless_delete = 1,
  tokenize = 'unicode61 remove_diacritics 2'
);

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE note (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE pairing (
  platform     TEXT NOT NULL,
  user_id      TEXT NOT NULL,
  user_name    TEXT NOT NULL,
  code_hash    TEXT NOT NULL,
  salt         TEXT NOT NULL,
  requested_at INTEGER,
  approved_at  INTEGER,
  PRIMARY KEY (platform, user_id)
) WITHOUT ROWID;

CREATE TABLE permission (
  session TEXT    NOT NULL,
  key     TEXT    NOT NULL,
  by      TEXT    NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (session, key)
) WITHOUT ROWID;

CREATE TABLE position (
  platform TEXT NOT NULL,
  account  TEXT NOT NULL,
  value    TEXT NOT NULL,
  PRIMARY KEY (platform, account)
) WITHOUT ROWID;

CREATE TABLE process (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  boot_id    TEXT    NOT NULL,
  pid        INTEGER NOT NULL,
  start_time INTEGER NOT NULL,
  kind       TEXT    NOT NULL,
  since      INTEGER NOT NULL
);

CREATE TABLE question (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  turn_id     INTEGER NOT NULL,
  session_key TEXT    NOT NULL,
  session     TEXT    NOT NULL,
  kind        TEXT    NOT NULL,
  call_id     TEXT    NOT NULL,
  text        TEXT    NOT NULL,
  detail      TEXT    NOT NULL,
  grant_key   TEXT    NOT NULL,
  choices     TEXT,
  answer      TEXT    NOT NULL DEFAULT '',
  answered_by TEXT    NOT NULL DEFAULT '',
  asked_at    INTEGER NOT NULL,
  expires_at  INTEGER,
  answered_at INTEGER
);

CREATE TABLE run (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  job        TEXT    NOT NULL,
  instant    INTEGER NOT NULL,
  manual     INTEGER NOT NULL,
  state      TEXT    NOT NULL,
  fence      INTEGER NOT NULL DEFAULT 0,
  process    INTEGER,
  turn_id    INTEGER,
  started_at INTEGER,
  ended_at   INTEGER,
  error      TEXT    NOT NULL DEFAULT '',
  output     TEXT    NOT NULL DEFAULT '',
  usage      TEXT,
  UNIQUE (job, instant)
);

CREATE TABLE session (
  n             INTEGER PRIMARY KEY AUTOINCREMENT,
  id            TEXT    NOT NULL UNIQUE,
  key           TEXT    NOT NULL,
  current       INTEGER NOT NULL, -- the key's session
  platform      TEXT    NOT NULL,
  source        TEXT    NOT NULL,
  title         TEXT    NOT NULL DEFAULT '',
  model         TEXT    NOT NULL DEFAULT '',
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  ended_at      INTEGER,
  end_reason    TEXT    NOT NULL DEFAULT '',
  parent        TEXT    NOT NULL DEFAULT '',
  message_count INTEGER NOT NULL DEFAULT 0,
  calls         INTEGER NOT NULL DEFAULT 0,
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE step (
  turn_id INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  kind    TEXT    NOT NULL,
  call_id TEXT    NOT NULL,
  tool    TEXT    NOT NULL,
  message TEXT    NOT NULL,
  usage   TEXT,
  at      INTEGER,
  PRIMARY KEY (turn_id, seq)
) WITHOUT ROWID;

CREATE TABLE turn (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  kind        TEXT    NOT NULL,
  session_key TEXT    NOT NULL,
  session     INTEGER,          -- NULL until it is claimed for the key's session
  source      TEXT    NOT NULL,
  state       TEXT    NOT NULL,
  fence       INTEGER NOT NULL DEFAULT 0,
  attempt     INTEGER NOT NULL DEFAULT 0,
  resumed     INTEGER NOT NULL DEFAULT 0,
  process     INTEGER,          -- who runs it
  inbound_id  INTEGER,          -- the newest event that it answers
  run_id      INTEGER,
  input       TEXT    NOT NULL,
  preview     TEXT    NOT NULL DEFAULT '',
  error       TEXT    NOT NULL DEFAULT '',
  usage       TEXT,
  created_at  INTEGER NOT NULL,
  started_at  INTEGER,
  ended_at    INTEGER
);

CREATE INDEX delivery_chat  ON delivery (platform, chat_id, thread_id, id) WHERE state = 'sent';

CREATE INDEX delivery_dead  ON delivery (id) WHERE state = 'dead';

CREATE INDEX delivery_ended ON delivery (ended_at) WHERE ended_at IS NOT NULL;

CREATE INDEX delivery_held  ON delivery (process) WHERE state = 'sending';

CREATE INDEX delivery_open  ON delivery (platform, chat_id, thread_id, id) WHERE ended_at IS NULL;

CREATE INDEX delivery_run   ON delivery (run_id, id) WHERE run_id IS NOT NULL;

CREATE INDEX delivery_turn  ON delivery (turn_id, id) WHERE turn_id IS NOT NULL;

CREATE INDEX inbound_chat     ON inbound (platform, chat_id, thread_id, id);

CREATE INDEX inbound_claimed  ON inbound (turn_id) WHERE state = 'claimed';

CREATE INDEX inbound_ended    ON inbound (ended_at, state) WHERE ended_at IS NOT NULL;

CREATE INDEX inbound_received ON inbound (session_key, id) WHERE state = 'received';

CREATE INDEX job_due  ON job (next_at) WHERE enabled = 1 AND next_at IS NOT NULL;

CREATE INDEX job_name ON job (name, id);

CREATE INDEX lease_held ON lease (process) WHERE process IS NOT NULL;

CREATE INDEX message_session ON message (session, status, id);

CREATE INDEX question_expires ON question (expires_at) WHERE answered_at IS NULL AND expires_at IS NOT NULL;

CREATE INDEX question_open    ON question (session_key, id) WHERE answered_at IS NULL;

CREATE INDEX question_turn    ON question (turn_id);

CREATE INDEX run_held    ON run (process) WHERE state = 'running';

CREATE INDEX run_instant ON run (instant, id);

CREATE INDEX run_state   ON run (state, instant, id);

CREATE UNIQUE INDEX session_current ON session (key) WHERE current = 1;

CREATE INDEX session_key     ON session (key, updated_at);

CREATE INDEX session_updated ON session (updated_at);

CREATE INDEX turn_ended   ON turn (ended_at) WHERE ended_at IS NOT NULL;

CREATE INDEX turn_held    ON turn (process) WHERE state = 'running';

CREATE INDEX turn_open    ON turn (session_key, id) WHERE ended_at IS NULL;

CREATE INDEX turn_session ON turn (session);

