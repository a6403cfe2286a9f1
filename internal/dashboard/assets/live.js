// The turn that runs now: its tool calls, its text as it is written, and that
// it waits for an answer. When it has ended, its tool calls stay on the page.

import { render } from './markdown.js';
import { sameText } from './items.js';

const marks = { running: '', waiting: '?', done: '✓', failed: '✕' };
const stateWords = { running: 'running', waiting: 'needs your answer', done: 'done', failed: 'failed' };
const answerFollows = 4000; // ms within which the answer's message follows the end of its turn

export class LiveTurn {
  constructor(changed) {
    this.changed = changed;
    this.turns = []; // the running one last; a few ended ones for their tools
    this.current = null;
  }

  get running() {
    return Boolean(this.current && !this.current.ended);
  }

  // resume takes over what the gateway says of the running turn; null: none runs.
  resume(turn) {
    if (!turn) {
      if (this.current) this.#end(this.current);
      return;
    }
    const t = this.#turn(turn.id);
    t.text = turn.text || '';
    for (const c of turn.tools || []) this.#tool(t, c.call_id, c.tool, c.label, c.state);
    t.waiting = false;
    if (turn.waiting) this.#wait(t);
    this.changed();
  }

  apply(e, after) {
    if (e.kind === 'ended') {
      const t = this.turns.find((x) => x.id === e.turn_id);
      if (t) this.#end(t);
      return;
    }
    const t = this.#turn(e.turn_id, after);
    switch (e.kind) {
      case 'started': t.waiting = false; break;
      case 'delta': t.text += e.text; t.answered = false; break;
      case 'answer_reset': t.text = ''; break;
      case 'tool_started': this.#tool(t, e.call_id, e.tool, e.label, 'running'); break;
      case 'tool_finished': this.#tool(t, e.call_id, e.tool, e.label, e.failed ? 'failed' : 'done'); break;
      case 'waiting': this.#wait(t); break;
    }
    this.changed();
  }

  // delivered says that a message arrived, by its id and its text: if it is the
  // text that was being written, it takes its place. The turn's tool calls are
  // kept before the last message that belongs to it.
  delivered(id, text) {
    const t = this.current;
    if (!t) return;
    const answers = t.text && (sameText(t.text, text) || text.startsWith(t.text.trimEnd()));
    if (!t.settled && (!t.ended || Date.now() - t.ended < answerFollows)) t.before = { id, text };
    t.settled = t.settled || Boolean(answers || t.ended);
    if (answers || t.ended) {
      t.text = '';
      t.answered = true;
    }
  }

  // recorded says what the newest message of the record is.
  recorded(id, text) {
    const t = this.current;
    if (t && t.text && sameText(t.text, text)) this.delivered(id, text);
  }

  #turn(id, after) {
    let t = this.turns.find((x) => x.id === id);
    if (!t) {
      if (this.current) this.#end(this.current);
      t = { id, after, text: '', tools: new Map(), node: document.createElement('li'), toolList: document.createElement('div'), body: document.createElement('div') };
      t.node.className = 'msg assistant live';
      t.toolList.className = 'tools';
      t.body.className = 'text';
      t.node.append(t.toolList, t.body);
      this.turns = [...this.turns, t].slice(-20);
      this.current = t;
    }
    return t;
  }

  #end(t) {
    if (t.ended) return;
    t.ended = Date.now();
    t.waiting = false;
    for (const [id, c] of t.tools) if (c.state === 'running' || c.state === 'waiting') this.#tool(t, id, c.tool, c.label, 'failed');
    // The answer's message follows its turn at once; its text stays until then.
    setTimeout(() => { t.text = ''; this.changed(); }, answerFollows);
    this.changed();
  }

  #wait(t) {
    t.waiting = true;
    t.text = '';
    for (const [id, c] of t.tools) if (c.state === 'running') this.#tool(t, id, c.tool, c.label, 'waiting');
  }

  #tool(t, id, tool, label, state) {
    let c = t.tools.get(id);
    if (!c) {
      c = { node: document.createElement('details') };
      c.node.className = 'tool';
      t.tools.set(id, c);
      t.toolList.append(c.node);
    }
    Object.assign(c, { tool, label: label || c.label || tool, state });
    c.node.dataset.state = state;
    const mark = Object.assign(document.createElement('i'), { textContent: marks[state] });
    mark.setAttribute('aria-hidden', 'true');
    const head = document.createElement('summary');
    const name = Object.assign(document.createElement('span'), { textContent: c.label });
    const word = Object.assign(document.createElement('em'), { textContent: stateWords[state] });
    head.append(mark, name, word);
    const body = Object.assign(document.createElement('pre'), { textContent: tool + (c.label && c.label !== tool ? '\n' + c.label : '') });
    c.node.replaceChildren(head, body);
  }

  // place puts the turns into the list: an ended one beside what it belongs to,
  // the running one at the end.
  place(list) {
    for (const t of this.turns) {
      t.node.classList.toggle('live', !t.ended);
      t.body.hidden = Boolean(t.ended) && !t.text;
      this.#draw(t);
      if (t.ended && !t.text && t.tools.size === 0) continue;
      const item = { key: 'turn-' + t.id, role: 'turn', node: t.node };
      const at = t.ended && !t.text ? this.#position(list, t) : list.length;
      if (at >= 0) list.splice(at, 0, item);
    }
    return list;
  }

  // #position is where an ended turn stands: before its answer, else behind
  // what it began after; -1 when neither is on the page.
  #position(list, t) {
    if (t.before) {
      const { id, text } = t.before;
      let at = list.findIndex((i) => i.key === id || i.ref === id);
      if (at < 0) at = list.findLastIndex((i) => i.role === 'assistant' && sameText(i.part.text, text));
      if (at >= 0) return at;
    }
    const after = list.findIndex((i) => i.key === t.after || i.ref === t.after);
    if (after >= 0) return after + 1;
    return t === this.current ? list.length : -1;
  }

  #draw(t) {
    const shown = t.text + '|' + t.waiting + '|' + t.answered;
    if (t.shown === shown) return;
    t.shown = shown;
    if (t.text) t.body.replaceChildren(render(t.text));
    else if (t.waiting) t.body.replaceChildren(Object.assign(document.createElement('p'), { className: 'waits', textContent: 'Waiting for your answer' }));
    else if (t.ended || t.answered) t.body.replaceChildren();
    else t.body.replaceChildren(dots());
  }
}

function dots() {
  const d = document.createElement('span');
  d.className = 'typing';
  d.role = 'img';
  d.setAttribute('aria-label', 'Hermes is writing');
  d.append(...[0, 1, 2].map(() => document.createElement('i')));
  return d;
}
