// One entry of the conversation as an element.

import { render } from './markdown.js';

const kinds = { cron: ['Scheduled', 'cron'], alert: ['Alert', 'alert'], notice: ['Notice', 'notice'], question: ['Needs your answer', 'question'] };

export const sameText = (a, b) => (a || '').trim() === (b || '').trim();

function el(tag, name, ...children) {
  const e = document.createElement(tag);
  if (name) e.className = name;
  e.append(...children);
  return e;
}

// renderItem makes the element of an item. item.chosen is the command of the
// button that was pressed; actions are what its controls do.
export function renderItem(item, actions) {
  if (item.role === 'day') return el('li', 'day', dayWord(item.at));
  const li = el('li', 'msg ' + (item.role === 'user' ? 'user' : 'assistant'));
  const kind = kinds[item.kind];
  if (kind) {
    const answered = item.kind === 'question' && item.chosen;
    li.classList.add('kind-' + kind[1]);
    li.classList.toggle('answered', Boolean(answered));
    li.append(el('span', 'badge', answered ? 'Answered' : kind[0]));
  }
  li.append(body(item));
  for (const a of item.part.attachments || []) li.append(el('p', 'file', '📎 ' + (a.name || a.kind)));
  if ((item.part.buttons || []).length) li.append(buttons(item.part.buttons, item.chosen, actions));
  li.append(foot(item, actions));
  return li;
}

function body(item) {
  const text = item.part.text || '';
  if (item.role === 'user') {
    return el('div', /^\/\S/.test(text) && !text.includes('\n') ? 'text command' : 'text', text);
  }
  if (!item.part.markup) return el('div', 'text plain', text);
  const div = el('div', 'text');
  div.append(render(text));
  return div;
}

function buttons(list, chosen, actions) {
  const row = el('div', 'buttons');
  for (const b of list) {
    const button = el('button', '', b.label);
    button.type = 'button';
    if (/^\/(deny|no)\b/.test(b.command)) button.classList.add('deny');
    if (chosen) {
      button.disabled = true;
      if (b.command === chosen) { button.classList.add('chosen'); button.prepend('✓ '); }
    } else {
      button.addEventListener('click', () => actions.press(b));
    }
    row.append(button);
  }
  return row;
}

const stateWords = { waiting: 'not sent yet, trying again', sending: 'sending…', accepted: '', refused: 'not accepted' };

function foot(item, actions) {
  const f = el('div', 'foot');
  const m = item.sending;
  if (m && m.state !== 'accepted') {
    const slow = m.state === 'sending' && !m.reason;
    const word = el('span', slow ? 'state dim' : 'state bad', m.state === 'waiting' && !m.reason ? 'sending…' : stateWords[m.state]);
    if (m.reason) word.title = m.reason;
    f.append(word);
    if (m.state === 'refused') f.append(el('span', 'reason', m.reason));
    if (m.state === 'refused' || (m.state === 'waiting' && m.reason)) {
      f.append(action('Retry', () => actions.retry(m)), action('Edit', () => actions.edit(m)));
    }
    return f;
  }
  const time = el('time', '', item.at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
  time.dateTime = item.at.toISOString();
  time.title = item.at.toLocaleString();
  f.append(time);
  return f;
}

function action(word, run) {
  const b = el('button', 'link-button', word);
  b.type = 'button';
  b.addEventListener('click', run);
  return b;
}

function dayWord(at) {
  const now = new Date();
  const days = Math.round((new Date(now.toDateString()) - new Date(at.toDateString())) / 86400000);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return at.toLocaleDateString([], { weekday: 'long', day: 'numeric', month: 'long', year: at.getFullYear() === now.getFullYear() ? undefined : 'numeric' });
}
