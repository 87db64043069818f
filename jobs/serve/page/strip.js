// The sampled frames: what was read of them, encoded, and taken in by the language model.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { STAGES } from "./watch.js";
import { count, seconds } from "./words.js";

const MAX_CELLS = 24; // of a long clip a cell stands for several frames
const WIDTH_PX = 128;

export function Strip({ state, frameUrl, onSeek }) {
  const { times_s } = state.stream.plan;
  const size = Math.ceil(times_s.length / MAX_CELLS);
  const cells = [];
  for (let first = 0; first < times_s.length; first += size) cells.push([first, Math.min(first + size, times_s.length)]);
  const taken = state.stages.filter((stage) => stage === 3).length;
  return html`<section class="strip" aria-label="The frames that the model sees">
    <ol data-prefilled=${taken} data-frames=${times_s.length}>
      ${cells.map(([first, end]) => html`<${Cell} key=${first} ...${{ state, first, end, frameUrl, onSeek }} />`)}
    </ol>
    <p class="legend">
      ${STAGES.slice(1).map((name) => html`<span class=${name}>${name === "decoded" ? "read" : name}</span>`)}
      ${state.damaged.size > 0 && html`<span class="damaged">${count(state.damaged.size, "damaged frame")}</span>`}
    </p>
  </section>`;
}

function Cell({ state, first, end, frameUrl, onSeek }) {
  const stages = state.stages.slice(first, end);
  const [picture, setPicture] = useState(null);
  const isRead = stages.some((stage) => stage > 0);
  useEffect(() => {
    if (isRead && !picture) frameUrl(first, WIDTH_PX).then(setPicture, () => {});
  }, [isRead]);
  const time_s = state.stream.plan.times_s[first];
  const reached = (stage) => stages.filter((each) => each >= stage).length / stages.length;
  const isDamaged = stages.some((_, index) => state.damaged.has(first + index));
  const [read, encoded, prefilled] = [1, 2, 3].map(reached);
  const words = prefilled === 1 ? "prefilled" : encoded === 1 ? "encoded" : read === 1 ? "read" : "not read yet";
  return html`<li>
    <button
      class=${isDamaged ? "damaged" : ""}
      onClick=${() => onSeek(time_s)}
      title=${`${seconds(time_s)}, ${words}${isDamaged ? ", damaged" : ""}`}
      aria-label=${`go to ${seconds(time_s)}, ${words}${isDamaged ? ", damaged" : ""}`}
    >
      ${picture ? html`<img src=${picture} alt="" />` : html`<span class="empty"></span>`}
      <i class="decoded" style=${{ width: `${100 * read}%` }}></i>
      <i class="encoded" style=${{ width: `${100 * encoded}%` }}></i>
      <i class="prefilled" style=${{ width: `${100 * prefilled}%` }}></i>
    </button>
  </li>`;
}
