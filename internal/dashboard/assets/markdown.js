// A small Markdown renderer. It makes elements and text nodes, never markup
// from text, so that nothing that a model writes can become more than it is.
// Links open only http, https and mailto; images are shown as links.

function el(tag, ...children) {
  const e = document.createElement(tag);
  e.append(...children);
  return e;
}

// render gives a fragment for a Markdown text.
export function render(text) {
  const out = document.createDocumentFragment();
  blocks(text.replace(/\r\n?/g, '\n').split('\n'), out, 0);
  return out;
}

const fence = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const heading = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const rule = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const item = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const divider = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const maxDepth = 12;

function blocks(lines, out, depth) {
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (line.trim() === '') { i++; continue; }
    let m;
    if ((m = fence.exec(line))) i = codeBlock(lines, i, m, out);
    else if ((m = heading.exec(line))) { out.append(inlineInto(el('h' + Math.min(6, m[1].length + 1)), m[2])); i++; }
    else if (rule.test(line)) { out.append(el('hr')); i++; }
    else if (/^ {0,3}>/.test(line) && depth < maxDepth) i = quote(lines, i, out, depth);
    else if (item.test(line) && depth < maxDepth) i = list(lines, i, out, depth);
    else if (line.includes('|') && i + 1 < lines.length && lines[i + 1].includes('-') && divider.test(lines[i + 1])) i = table(lines, i, out);
    else i = paragraph(lines, i, out);
  }
}

function startsBlock(line) {
  return fence.test(line) || heading.test(line) || rule.test(line) || /^ {0,3}>/.test(line) || item.test(line);
}

function paragraph(lines, i, out) {
  const part = [lines[i++]];
  while (i < lines.length && lines[i].trim() !== '' && !startsBlock(lines[i])) part.push(lines[i++]);
  out.append(inlineInto(el('p'), part.map((l) => l.trim()).join('\n')));
  return i;
}

function codeBlock(lines, i, m, out) {
  const close = new RegExp('^ {0,3}' + (m[1][0] === '`' ? '`' : '~') + '{' + m[1].length + ',}\\s*$');
  const body = [];
  i++;
  while (i < lines.length && !close.test(lines[i])) body.push(lines[i++]);
  out.append(codeBox(body.join('\n'), m[2]));
  return i + 1;
}

function codeBox(text, language) {
  const copy = el('button', 'Copy');
  copy.type = 'button';
  copy.className = 'copy';
  copy.addEventListener('click', () => copyText(text, copy));
  const head = el('div', el('span', language || 'text'), copy);
  head.className = 'codehead';
  const pre = el('pre', el('code', text));
  pre.tabIndex = 0;
  const box = el('div', head, pre);
  box.className = 'code';
  return box;
}

async function copyText(text, button) {
  let ok = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain http to another host has no clipboard API.
    const area = el('textarea');
    area.value = text;
    area.className = 'unseen';
    document.body.append(area);
    area.select();
    ok = document.execCommand('copy');
    area.remove();
  }
  button.textContent = ok ? 'Copied' : 'Not copied';
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

function quote(lines, i, out, depth) {
  const inner = [];
  while (i < lines.length && /^ {0,3}>/.test(lines[i])) inner.push(lines[i++].replace(/^ {0,3}> ?/, ''));
  const q = el('blockquote');
  blocks(inner, q, depth + 1);
  out.append(q);
  return i;
}

function list(lines, i, out, depth) {
  const first = item.exec(lines[i]);
  const ordered = /\d/.test(first[2]);
  const indent = first[1].length;
  const node = el(ordered ? 'ol' : 'ul');
  if (ordered && parseInt(first[2], 10) !== 1) node.start = parseInt(first[2], 10);
  while (i < lines.length) {
    const m = item.exec(lines[i]);
    if (!m || m[1].length < indent || m[1].length > indent + 1 || /\d/.test(m[2]) !== ordered) break;
    const inner = [m[3]];
    const content = m[1].length + m[2].length + 1; // where the item's own text begins
    for (i++; i < lines.length && belongs(lines, i, indent); i++) {
      inner.push(lines[i].slice(Math.min(margin(lines[i]), content)));
    }
    node.append(listItem(inner, depth));
    while (i + 1 < lines.length && lines[i].trim() === '' && item.test(lines[i + 1])) i++;
  }
  out.append(node);
  return i;
}

const margin = (line) => /^\s*/.exec(line)[0].length;

// belongs tells whether a line continues the list item that stands at indent.
function belongs(lines, i, indent) {
  if (lines[i].trim() !== '') return margin(lines[i]) > indent;
  return i + 1 < lines.length && lines[i + 1].trim() !== '' && margin(lines[i + 1]) > indent;
}

function listItem(inner, depth) {
  const li = el('li');
  const task = /^\[([ xX])\]\s+/.exec(inner[0]);
  if (task) {
    const box = el('input');
    box.type = 'checkbox';
    box.disabled = true;
    box.checked = task[1] !== ' ';
    li.append(box, ' ');
    inner[0] = inner[0].slice(task[0].length);
  }
  if (inner.length === 1) return inlineInto(li, inner[0]);
  const holder = document.createDocumentFragment();
  blocks(inner, holder, depth + 1);
  // A tight item's first paragraph needs no paragraph of its own.
  const head = holder.firstElementChild;
  if (head && head.tagName === 'P') {
    li.append(...head.childNodes);
    head.remove();
  }
  li.append(holder);
  return li;
}

function cells(line) {
  return line.trim().replace(/^\||(?<!\\)\|$/g, '').split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, '|'));
}

function table(lines, i, out) {
  const row = (line, tag) => el('tr', ...cells(line).map((c) => inlineInto(el(tag), c)));
  const head = el('thead', row(lines[i], 'th'));
  const body = el('tbody');
  for (i += 2; i < lines.length && lines[i].includes('|'); i++) body.append(row(lines[i], 'td'));
  const box = el('div', el('table', head, body));
  box.className = 'tablebox';
  box.tabIndex = 0;
  out.append(box);
  return i;
}

// Inline forms, tried in order at each place where one may begin.
const inlines = [
  [/^(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)/, (m) => el('code', m[2].replace(/^ (.+) $/, '$1'))],
  [/^\*\*\*(?=\S)([\s\S]*?\S)\*\*\*/, (m, d) => el('strong', inlineInto(el('em'), m[1], d))],
  [/^\*\*(?=\S)([\s\S]*?\S)\*\*/, (m, d) => inlineInto(el('strong'), m[1], d)],
  [/^__(?=\S)([\s\S]*?\S)__(?!\w)/, (m, d) => inlineInto(el('strong'), m[1], d)],
  [/^~~(?=\S)([\s\S]*?\S)~~/, (m, d) => inlineInto(el('del'), m[1], d)],
  [/^\*(?=[^\s*])([\s\S]*?[^\s*])\*(?!\*)/, (m, d) => inlineInto(el('em'), m[1], d)],
  [/^_(?=[^\s_])([\s\S]*?[^\s_])_(?!\w)/, (m, d) => inlineInto(el('em'), m[1], d)],
  [/^!?\[([^\]]*)\]\(\s*<?([^\s)>]+)>?(?:\s+["'][^)]*["'])?\s*\)/, (m, d) => link(m[2], m[1] || m[2], d)],
  [/^<((?:https?:\/\/|mailto:)[^\s>]+)>/, (m) => link(m[1], m[1], maxDepth)],
  [/^https?:\/\/[^\s<>"']+/, (m) => bare(m)],
  [/^\\([\\`*_{}[\]()#+\-.!|~>])/, (m) => m[1]],
  [/^(?: {2,}|\\)?\n/, () => el('br')],
];
const mayBegin = /[`*_~![<h\\\n ]/;

// link makes an anchor for a harmless address, and plain text for any other.
function link(address, text, depth) {
  let url;
  try {
    url = new URL(address, location.href);
  } catch {
    return text;
  }
  if (!/^(https?|mailto):$/.test(url.protocol) || !/^(https?:|mailto:)/i.test(address)) return text + ' (' + address + ')';
  const a = el('a');
  a.href = url.href;
  a.target = '_blank';
  a.rel = 'noopener noreferrer nofollow';
  return depth >= maxDepth ? (a.append(text), a) : inlineInto(a, text, depth + 1);
}

// bare is an address in running text; the punctuation after it is not of it.
function bare(m) {
  let address = m[0].replace(/[.,;:!?*_~]+$/, '');
  if (address.endsWith(')') && !address.includes('(')) address = address.slice(0, -1);
  m[0] = address;
  return link(address, address, maxDepth);
}

function inlineInto(parent, text, depth = 0) {
  let plain = '';
  let i = 0;
  const flush = () => { if (plain) parent.append(plain); plain = ''; };
  while (i < text.length) {
    const found = mayBegin.test(text[i]) && depth < maxDepth ? match(text, i, depth) : null;
    if (!found) { plain += text[i++]; continue; }
    if (typeof found.node === 'string') plain += found.node;
    else { flush(); parent.append(found.node); }
    i += found.length;
  }
  flush();
  return parent;
}

const longestInline = 4000; // characters that one inline form may span

function match(text, at, depth) {
  if ((text[at] === '_' || text[at] === 'h') && at > 0 && /\w/.test(text[at - 1])) return null;
  const rest = text.slice(at, at + longestInline);
  for (const [pattern, make] of inlines) {
    const m = pattern.exec(rest);
    if (!m) continue;
    const node = make(m, depth + 1);
    return { node, length: m[0].length };
  }
  return null;
}
