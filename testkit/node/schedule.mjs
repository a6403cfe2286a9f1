// Drives the schedule page with a headless Chromium; see chat.mjs for how the
// two sides talk.
import assert from 'node:assert/strict';
import readline from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath, base, key, shots, profile] = process.argv.slice(2);
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const step = async (name) => {
  console.log('step ' + name);
  await answers.next();
};

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  viewport: { width: 1280, height: 800 },
  colorScheme: 'light',
});
context.setDefaultTimeout(30000);
const page = context.pages()[0] ?? await context.newPage();
const complaints = [];
page.on('pageerror', (e) => complaints.push('error: ' + e.message));
page.on('console', (m) => {
  if (m.type() === 'error' && !/Failed to load resource/.test(m.text())) complaints.push(m.text());
});
page.on('request', (r) => {
  if (!r.url().startsWith(base)) complaints.push('foreign request: ' + r.url());
});
const sizes = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
const shoot = async (name) => {
  for (const [size, viewport] of Object.entries(sizes)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${shots}/${name}-${size}-${colorScheme}.png`, fullPage: true });
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${name} is ${wide} px too wide on ${size}`);
  }
  await page.setViewportSize(sizes.desktop);
  await page.emulateMedia({ colorScheme: 'light' });
};
const job = (name) => page.locator('.job', { has: page.locator('h2', { hasText: name }) });
const cells = (name) => job(name).locator('.strip li').evaluateAll((all) => all.map((e) => e.dataset.cell));

try {
  await page.goto(base + '/schedule');
  await page.fill('#keydialog input', key);
  await page.keyboard.press('Enter');

  // Nothing is scheduled, and the page says what to do.
  await page.locator('#empty:not([hidden])').waitFor();
  assert.equal(await page.locator('.job').count(), 0);
  await shoot('schedule-empty');

  // Jobs with a past.
  await step('fill');
  await page.reload();
  await job('Night mail').waitFor();
  assert.equal(await page.locator('.job').count(), 4);
  assert.deepEqual((await cells('Night mail')).slice(-9), ['ok', 'ok', 'missed', 'ok', 'silent', 'ok', 'undelivered', 'ok', 'ok']);
  assert.deepEqual((await cells('backup-check')).slice(-5), ['silent', 'silent', 'ok', 'failed', 'failed']);
  const often = await cells('disk-watchdog');
  for (const state of ['ok', 'silent', 'timed_out', 'skipped', 'unknown']) assert.ok(often.includes(state), state + ' in ' + often);
  assert.match(await job('Night mail').locator('.when').innerText(), /at 09:00 on Monday to Friday.*agent → telegram/s);
  assert.match(await job('Night mail').locator('.facts3 li').first().innerText(), /09:00 Asia\/Seoul = .* 00:00 UTC/);
  assert.equal(await job('Night mail').locator('.facts3 li').count(), 3);
  assert.match(await job('backup-check').locator('.facts3 dd').first().innerText(), /failed, .*Script exited with code 12$/s);
  assert.match(await job('backup-check').locator('.facts3 dd').nth(1).innerText(), /delivered/);
  await job('A rather long').locator('.reason', { hasText: 'until September' }).waitFor();

  // A cell tells what it stands for, by mouse and by keyboard.
  await job('Night mail').locator('[data-cell="undelivered"]').hover();
  await job('Night mail').locator('.detail', { hasText: /1 not delivered/ }).waitFor();
  await job('backup-check').locator('[data-cell="failed"]').first().focus();
  await job('backup-check').locator('.detail', { hasText: /code 12/ }).waitFor();
  await shoot('schedule');

  // The buttons.
  await job('A rather long').locator('button', { hasText: 'Resume' }).click();
  await job('A rather long').locator('.pill', { hasText: 'active' }).waitFor();
  await job('A rather long').locator('button', { hasText: 'Pause' }).click();
  await job('A rather long').locator('.pill', { hasText: 'paused' }).waitFor();
  await job('backup-check').locator('button', { hasText: 'Run now' }).click();
  await job('backup-check').locator('[data-cell="failed"]').last().waitFor();

  // From page to page.
  await page.click('nav a[href="/status"]');
  await page.click('nav a[href="/schedule"]');
  await job('Night mail').waitFor();
  assert.ok(!(await page.content()).includes(key), 'the page shows the key');
  assert.deepEqual(complaints, []);
} catch (failure) {
  await page.screenshot({ path: `${shots}/failure.png` }).catch(() => {});
  console.error(failure, complaints);
  process.exitCode = 1;
} finally {
  await context.close();
  process.exit();
}
