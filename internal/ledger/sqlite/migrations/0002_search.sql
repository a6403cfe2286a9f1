-- Two indexes over message.content, kept up to date after the commit of a turn
-- and before a search, not inside either. indexed_to is the last message that
-- both of them know. They hold no text of their own; deleting works by row id.

CREATE VIRTUAL TABLE message_words USING fts5 (
  content, content = '', contentless_delete = 1,
  tokenize = 'unicode61 remove_diacritics 2'
);

-- Only messages with a script that puts no spaces between words.
CREATE VIRTUAL TABLE message_trigrams USING fts5 (
  content, content = '', contentless_delete = 1,
  tokenize = 'trigram'
);

INSERT INTO meta (key, value) VALUES ('indexed_to', '0');
