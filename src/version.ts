/** Version of walrust; the same as in package.json and deno.json (a test compares them). */
export const version: string = "0.1.0";
