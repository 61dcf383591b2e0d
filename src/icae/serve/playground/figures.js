// Numbers as people read them.

const whole = new Intl.NumberFormat("en");
const UNITS = ["B", "KB", "MB", "GB", "TB"];

/** A whole number with separators. */
export const count = (number) => whole.format(number);

/** Bytes in the unit that fits, decimal. */
export function bytes(number) {
  const power = Math.min(Math.floor(Math.log10(Math.max(number, 1)) / 3), UNITS.length - 1);
  const value = number / 1000 ** power;
  return `${power === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[power]}`;
}

/** Seconds: two digits below ten. */
export const seconds = (number) => `${number < 10 ? number.toFixed(2) : number.toFixed(1)} s`;

/** A share of 0..1, or a dash where it was not measured. */
export const percent = (share) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`;

/** How many times, such as a ratio. */
export const times = (number) => `${number < 10 ? number.toFixed(1) : number.toFixed(0)}×`;

/** "1 span", "2 spans". */
export const some = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
