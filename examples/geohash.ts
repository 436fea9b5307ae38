/** A city of the GeoNames database. */
export interface City {
  name: string;
  country: string;
  lat: string;
  lng: string;
}

const DIGITS = "0123456789bcdefghjkmnpqrstuvwxyz";

/** The geohash of a place: each digit divides a cell of the grid into 32, so one of four is 39 km wide at the equator. */
export function geohash(latitude: number, longitude: number, length: number): string {
  const ranges = { longitude: [-180, 180], latitude: [-90, 90] } as { longitude: [number, number]; latitude: [number, number] };
  let hash = "";
  let digit = 0;
  for (let bit = 0; bit < 5 * length; bit++) {
    const [range, place] = bit % 2 === 0 ? [ranges.longitude, longitude] : [ranges.latitude, latitude];
    const middle = (range[0] + range[1]) / 2;
    const upper = place >= middle;
    range[upper ? 0 : 1] = middle;
    digit = 2 * digit + (upper ? 1 : 0);
    if (bit % 5 < 4) continue;
    hash += DIGITS[digit];
    digit = 0;
  }
  return hash;
}

/** The task of cities.ts: the cell that a city is in. */
export default function cellOf({ name, country, lat, lng }: City): { name: string; country: string; cell: string } {
  return { name, country, cell: geohash(Number(lat), Number(lng), 4) };
}
