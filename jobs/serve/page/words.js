// Numbers as people read them, and the times that an answer speaks of.

export const seconds = (value) =>
  value >= 60
    ? `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, "0")}`
    : `${value.toFixed(value < 10 ? 2 : 1)} s`;

export const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;

const TIME = /\b(\d+):([0-5]\d(?:\.\d+)?)\b|\b(\d+(?:\.\d+)?) ?(?:s|secs?|seconds?)\b/g;

/** Pieces of a text: strings, and {text, time_s} where it names a time of the clip. */
export function withTimes(text, duration_s) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(TIME)) {
    const time_s = match[3] === undefined ? Number(match[1]) * 60 + Number(match[2]) : Number(match[3]);
    if (time_s > duration_s) continue;
    pieces.push(text.slice(end, match.index), { text: match[0], time_s });
    end = match.index + match[0].length;
  }
  return [...pieces, text.slice(end)].filter((piece) => piece !== "");
}
