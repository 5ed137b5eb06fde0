// node read.mjs FILE: what a C2PA reader of other make sees in a JPEG or PNG, as one JSON document.
// Exit status 0: read (`valid` says whether it validates); 1: no manifest; 2: not readable.

import { readFile } from "node:fs/promises";
import { JPEG, PNG } from "@trustnxt/c2pa-ts/asset";
import { SuperBox } from "@trustnxt/c2pa-ts/jumbf";
import {
  ActionAssertion,
  IngredientAssertion,
  ManifestStore,
  ValidationResult,
} from "@trustnxt/c2pa-ts/manifest";

const file = process.argv[2];
if (!file) fail("usage: node read.mjs FILE");

const bytes = await readFile(file).catch((error) => fail(error.message));
const format = JPEG.canRead(bytes) ? "JPEG" : PNG.canRead(bytes) ? "PNG" : undefined;
if (!format) fail(`${file} is neither JPEG nor PNG`);

let asset;
let jumbf;
try {
  asset = format === "JPEG" ? new JPEG(bytes) : new PNG(bytes);
  jumbf = asset.getManifestJUMBF();
} catch (error) {
  fail(`${file} is damaged: ${error.message}`);
}
if (!jumbf) {
  print({ format, active_manifest: null, valid: false });
  process.exit(1);
}

let store;
let result;
try {
  store = ManifestStore.read(SuperBox.fromBuffer(jumbf));
  result = await store.validate(asset);
} catch (error) {
  result = ValidationResult.fromError(error);
}
const active = store?.getActiveManifest();

print({
  format,
  active_manifest: active?.label ?? null,
  claim: active?.claim && describeClaim(active.claim),
  signed_by: active?.signature && signer(active.signature),
  assertions: assertionsOf(active).map((assertion) => assertion.fullLabel),
  actions: of(ActionAssertion, active).flatMap(({ actions }) => actions.map(describeAction)),
  ingredients: of(IngredientAssertion, active).map(describeIngredient),
  manifests: store?.manifests.map((manifest) => manifest.label) ?? [],
  valid: result.isValid,
  success: statuses(true),
  failure: statuses(false),
});

function assertionsOf(manifest) {
  return manifest?.assertions?.assertions ?? [];
}

function of(kind, manifest) {
  return assertionsOf(manifest).filter((assertion) => assertion instanceof kind);
}

function describeClaim(claim) {
  return {
    label: claim.label,
    instance_id: claim.instanceID,
    title: claim.title,
    generator: claim.claimGeneratorName,
    generator_version: claim.claimGeneratorVersion,
  };
}

function signer({ signatureData }) {
  const { certificate, algorithm, chainCertificates } = signatureData ?? {};
  return {
    subject: certificate?.subject,
    issuer: certificate?.issuer,
    algorithm: algorithm?.alg,
    chain: chainCertificates?.length,
  };
}

function describeAction({ action, digitalSourceType, description, parameters, softwareAgent }) {
  return {
    action,
    digital_source_type: digitalSourceType,
    description,
    software_agent: softwareAgent,
    parameters: plain({
      ...parameters,
      ingredients: parameters?.ingredients?.map((reference) => reference.uri ?? reference.url),
    }),
  };
}

function describeIngredient(ingredient) {
  const { fullLabel, title, format, relationship, instanceID, documentID } = ingredient;
  const manifest = ingredient.activeManifest ?? ingredient.c2pa_manifest;
  return {
    label: fullLabel,
    title,
    format,
    relationship,
    instance_id: instanceID,
    document_id: documentID,
    manifest: manifest?.uri.match(/[^/]*$/)[0] ?? null,
    data_types: ingredient.dataTypes?.map(({ type }) => type),
  };
}

function statuses(success) {
  return result.statusEntries
    .filter((entry) => (entry.success ?? false) === success)
    .map(({ code, url, explanation }) => ({ code, url, explanation }));
}

// CBOR's byte strings and dates as JSON can say them.
function plain(value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (value instanceof Date || value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

function print(document) {
  console.log(JSON.stringify(document, null, 2));
}

function fail(reason) {
  console.error(reason);
  process.exit(2);
}
