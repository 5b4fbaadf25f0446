// Ajv over stdin and stdout: the schema on the first line, then one document per line. The answer has the
// errors, and whether the schema accepts the document.

import { createInterface } from "node:readline"
import Ajv2020 from "ajv/dist/2020.js"

let validate
for await (const line of createInterface({ input: process.stdin })) {
  const value = JSON.parse(line)
  if(validate){
    const valid = validate(value)
    console.log(JSON.stringify({ valid, errors: validate.errors ?? [] }))
  } else {
    // Strict: an unknown keyword, or one that does not fit its type, is an error.
    validate = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true }).compile(value)
    console.log(JSON.stringify({ compiled: true }))
  }
}
