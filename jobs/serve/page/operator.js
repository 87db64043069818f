// The operator's view: the panels of the board with what they say now, asked for again and again.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";

const EVERY_MS = 2000;

export function Operator({ trying }) {
  const [sight, setSight] = useState(null);
  useEffect(() => {
    let timer = 0;
    let isLeft = false;
    const look = async () => {
      const seen = await trying(() => call("GET", "/v1/sight"));
      if (isLeft) return;
      if (seen) setSight(seen);
      timer = setTimeout(look, EVERY_MS);
    };
    look();
    return () => {
      isLeft = true;
      clearTimeout(timer);
    };
  }, []);
  if (!sight) return null;
  return html`<main class="operator">
    <p class="dim">${`The last ${Math.round(sight.window_s)} s; the same as vidray top and the Grafana board show`}</p>
    ${sight.rows.map((row) => html`<${Row} key=${row.title} row=${row} />`)}
  </main>`;
}

function Row({ row }) {
  return html`<section>
    <h2>${row.title}</h2>
    <div class="panels">${row.panels.map((panel) => html`<${Panel} key=${panel.title} panel=${panel} />`)}</div>
  </section>`;
}

function Panel({ panel }) {
  const isShare = panel.values.every((each) => each.text.endsWith("%"));
  const most = Math.max(...panel.values.map((each) => each.value), isShare ? 1 : 0);
  return html`<article>
    <h3>${panel.title}${panel.unit && html`<small>${` ${panel.unit}`}</small>`}</h3>
    <dl>
      ${panel.values.map(
        (each) => html`<dt>${each.of}</dt>
          <dd>${each.text}</dd>
          <i aria-hidden="true"><b style=${{ width: `${most > 0 ? (100 * each.value) / most : 0}%` }}></b></i>`,
      )}
    </dl>
  </article>`;
}
