// The clip as it plays, with boxes where they were found, at their times.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { seconds } from "./words.js";

const COLOURS = ["#ffb000", "#3ddbd9", "#ff6fb1", "#9be564", "#b79bff", "#ff8a5c"];
const STILL_WIDTH_PX = 640;

/** A picture is asked for if the browser cannot play the clip; its boxes are the same. */
export function Player({ url, media, player, onTime, boxes, tolerance_s, frameUrl, plan }) {
  const [cannotPlay, setCannotPlay] = useState(false);
  const [time_s, setTime] = useState(0);
  useEffect(() => setCannotPlay(media.is_still), [url, media.is_still]);
  const went = (value_s) => {
    setTime(value_s);
    onTime(value_s);
  };
  useLayoutEffect(() => {
    player.current = cannotPlay ? pictures(plan, time_s, went) : player.current?.pause ? player.current : null;
  });
  const shown = boxes.filter((box) => box.outcome === "found" && (media.is_still || Math.abs(box.time_s - time_s) <= tolerance_s));
  return html`<figure>
    <div class="player" style=${{ aspectRatio: `${plan.source_width} / ${plan.source_height}` }}>
    ${cannotPlay
      ? html`<${Still} url=${url} isStill=${media.is_still} frameUrl=${frameUrl} index=${nearest(plan.times_s, time_s)} />`
      : html`<video
          src=${url}
          controls
          muted
          playsinline
          preload="auto"
          aria-label="The clip"
          ref=${(element) => watchTime(element, player, went)}
          onError=${() => setCannotPlay(true)}
        ></video>`}
    <${Boxes} boxes=${shown} plan=${plan} />
    </div>
    ${cannotPlay && !media.is_still && html`<figcaption>This browser does not play ${media.codec}; these are the frames that vidray sees.</figcaption>`}
  </figure>`;
}

/** Time as it passes, not only four times a second. */
function watchTime(element, player, went) {
  if (!element || player.current === element) return;
  player.current = element;
  const tick = () => {
    if (player.current !== element || !element.isConnected) return;
    went(element.currentTime);
    if (!element.paused) requestAnimationFrame(tick);
  };
  for (const name of ["play", "seeked", "timeupdate", "loadeddata"]) element.addEventListener(name, tick);
}

/** What the page needs of a player, where there are single frames only. */
const pictures = (plan, time_s, went) => ({
  get currentTime() {
    return time_s;
  },
  set currentTime(value_s) {
    went(plan.times_s[nearest(plan.times_s, value_s)]);
  },
  paused: true,
  play: () => {},
});

export function nearest(times_s, time_s) {
  let best = 0;
  times_s.forEach((each, index) => {
    if (Math.abs(each - time_s) < Math.abs(times_s[best] - time_s)) best = index;
  });
  return best;
}

function Still({ url, isStill, frameUrl, index }) {
  const [source, setSource] = useState(isStill ? url : null);
  useEffect(() => {
    let isWanted = true;
    if (!isStill) frameUrl(index, STILL_WIDTH_PX).then((made) => isWanted && setSource(made), () => {});
    return () => (isWanted = false);
  }, [isStill, index]);
  return html`<img src=${source} alt="A frame of the clip" />`;
}

/** Corners are in pixels of the picture as it is shown; the canvas has that many. */
function Boxes({ boxes, plan }) {
  const canvas = useRef(null);
  useEffect(() => {
    const { width, height } = canvas.current;
    const pen = canvas.current.getContext("2d");
    pen.clearRect(0, 0, width, height);
    const line_px = Math.max(2, width / 200);
    pen.lineWidth = line_px;
    pen.font = `600 ${Math.max(11, width / 32)}px system-ui, sans-serif`;
    boxes.forEach((box, index) => {
      pen.strokeStyle = pen.fillStyle = COLOURS[index % COLOURS.length];
      pen.strokeRect(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0);
      const label_y = box.y0 > 20 ? box.y0 - line_px * 1.5 : box.y1 + Math.max(11, width / 32);
      const label = box.label || box.query;
      pen.fillText(label, Math.max(0, Math.min(box.x0, width - pen.measureText(label).width)), label_y);
    });
  }, [boxes.map((box) => [box.time_s, box.x0, box.y0, box.x1, box.y1]).join()]);
  return html`<canvas
    ref=${canvas}
    class="boxes"
    width=${plan.source_width}
    height=${plan.source_height}
    data-boxes=${boxes.length}
    aria-hidden="true"
  ></canvas>`;
}

/** What stretch is watched: two handles on one track. */
export function Stretch({ duration_s, start_s, end_s, onChange }) {
  const [held, setHeld] = useState({ start_s, end_s });
  useEffect(() => setHeld({ start_s, end_s }), [start_s, end_s]);
  const step_s = duration_s / 200; // so that the last step ends at the end
  const handle = (name, limit) => html`<input
    type="range"
    min="0"
    max=${duration_s}
    step=${step_s}
    value=${held[name]}
    aria-label=${name === "start_s" ? "watch from" : "watch to"}
    aria-valuetext=${seconds(held[name])}
    onInput=${(event) => setHeld({ ...held, [name]: limit(Number(event.target.value)) })}
    onChange=${() => onChange(held)}
  />`;
  const share = (value_s) => `${(100 * value_s) / duration_s}%`;
  return html`<div class="stretch">
    <div class="track"><i style=${{ left: share(held.start_s), right: share(duration_s - held.end_s) }}></i></div>
    ${handle("start_s", (value_s) => Math.max(0, Math.min(value_s, held.end_s - step_s)))}
    ${handle("end_s", (value_s) => Math.max(value_s, held.start_s + step_s))}
    <output>${seconds(held.start_s)} to ${seconds(held.end_s)}</output>
  </div>`;
}
