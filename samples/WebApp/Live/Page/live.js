'use strict';

// The page's whole program: what /live says every half second becomes numbers, dots, bars and lines.
const POINTS = 120;
const WIDTH = 600;
const HEIGHT = 150;
const COLOURS = 6;
const HELD = 0.95;

const at = selector => document.querySelector(selector);
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat('en', { style: 'percent', maximumFractionDigits: 0 });

let lanes = [];
let source = null;

function bytes(rate) {
  const units = ['B/s', 'kB/s', 'MB/s', 'GB/s'];
  let unit = 0;
  for (; rate >= 1000 && unit < units.length - 1; unit++) {
    rate /= 1000;
  }
  return [(rate < 10 && unit > 0 ? one : whole).format(rate), units[unit]];
}

function colourOf(index) {
  return `var(--loop-${index % COLOURS})`;
}

function makeLane(index) {
  const item = at('#lane').content.cloneNode(true).firstElementChild;
  item.dataset.loop = index;
  item.style.setProperty('--loop', colourOf(index));
  item.querySelector('h3 span').textContent = `Loop ${index}`;
  item.querySelector('.busy').setAttribute('aria-label', `loop ${index}, busy`);
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  line.style.stroke = colourOf(index);
  at('#chart').append(line);
  const values = {};
  for (const value of item.querySelectorAll('[data-value]')) {
    values[value.dataset.value] = value;
  }
  return { item, line, values, history: [], takeOvers: 0 };
}

function showServer(server) {
  const loops = server.loops.length;
  const parts = [server.transport, server.scheduling, server.balance, loops > 0 && `${loops} loop${loops === 1 ? '' : 's'}`, `process ${server.processId}`];
  at('#server').textContent = parts.filter(Boolean).join(' · ');
  at('#none').hidden = loops > 0;
  at('#lanes').replaceChildren();
  at('#chart').replaceChildren();
  lanes = server.loops.map(loop => makeLane(loop.index));
  at('#lanes').append(...lanes.map(lane => lane.item));
  at('#state').textContent = 'live';
  at('#state').dataset.state = 'live';
}

function showLane(lane, loop) {
  const values = lane.values;
  values.connections.textContent = whole.format(loop.connections);
  values.requests.textContent = whole.format(loop.requests);
  values.received.textContent = bytes(loop.received).join(' ');
  values.sent.textContent = bytes(loop.sent).join(' ');
  values.busy.textContent = percent.format(loop.busy);
  values.wakeUps.textContent = whole.format(loop.wakeUps);
  values.takeOvers.parentElement.hidden = loop.takeOvers === undefined;
  if (loop.takeOvers !== undefined) {
    lane.takeOvers += loop.takeOvers;
    values.takeOvers.textContent = whole.format(lane.takeOvers);
  }
  lane.item.querySelector('.dots').style.setProperty('--count', loop.connections);
  const busy = lane.item.querySelector('.busy');
  busy.setAttribute('aria-valuenow', Math.round(loop.busy * 100));
  busy.firstElementChild.style.transform = `scaleX(${loop.busy})`;
  const held = loop.busy >= HELD;
  lane.item.classList.toggle('held', held);
  lane.item.querySelector('.note').textContent = held ? 'held by a handler, or at its limit' : '';
  lane.history.push(loop.requests);
  if (lane.history.length > POINTS) {
    lane.history.shift();
  }
}

function showChart() {
  const most = Math.max(1, ...lanes.flatMap(lane => lane.history));
  const step = 10 ** Math.floor(Math.log10(most));
  const top = Math.ceil(most / step) * step;
  at('.top').textContent = whole.format(top);
  for (const { line, history } of lanes) {
    const first = POINTS - history.length;
    line.setAttribute('points', history.map((value, i) =>
      `${((first + i) * WIDTH / (POINTS - 1)).toFixed(1)},${(HEIGHT - 1 - value / top * (HEIGHT - 2)).toFixed(1)}`).join(' '));
  }
}

function show(loops) {
  if (lanes.length !== loops.length) {
    return;
  }
  loops.forEach((loop, i) => showLane(lanes[i], loop));
  const sum = name => loops.reduce((total, loop) => total + loop[name], 0);
  for (const total of document.querySelectorAll('[data-total]')) {
    const name = total.dataset.total;
    if (name === 'received' || name === 'sent') {
      const [number, unit] = bytes(sum(name));
      const small = document.createElement('small');
      small.textContent = unit;
      total.replaceChildren(number, small);
    } else {
      total.textContent = whole.format(sum(name));
    }
  }
  showChart();
}

// Nobody looks at a hidden page, so it does not listen either.
function listen() {
  if (document.hidden) {
    source?.close();
    source = null;
  } else if (!source) {
    source = new EventSource('live');
    source.addEventListener('server', event => showServer(JSON.parse(event.data)));
    source.addEventListener('loops', event => show(JSON.parse(event.data)));
    source.addEventListener('error', () => {
      at('#state').textContent = 'connection lost, trying again';
      at('#state').dataset.state = 'lost';
    });
  }
}

function say(text) {
  at('#said').textContent = text;
}

async function openConnections() {
  say('Opening connections …');
  const response = await fetch('live/connections', { method: 'POST' });
  say(response.ok
    ? await response.json().then(batch => `${batch.connections} connections for ${batch.seconds} s, each with ten requests per second.`)
    : await response.text());
}

async function sendBlocking() {
  say('A handler blocks its thread for 500 ms …');
  const began = performance.now();
  const response = await fetch('block?ms=500', { cache: 'no-store' });
  await response.text();
  say(`The handler blocked its thread for 500 ms; the answer came after ${whole.format(performance.now() - began)} ms.`);
}

const failed = error => say(`That did not work: ${error.message}`);
at('#open').addEventListener('click', () => openConnections().catch(failed));
at('#block').addEventListener('click', () => sendBlocking().catch(failed));
document.addEventListener('visibilitychange', listen);
listen();
