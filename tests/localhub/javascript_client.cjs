// Client of the JavaScript package: `node javascript_client.cjs PACKAGE FOLDER` with HF_ENDPOINT and HF_TOKEN set.
// It prints one JSON object: the name of each call -> its result, or {"error": message, "status": status}.
const hub = require(process.argv[2]);
const folder = process.argv[3];
const fs = require("node:fs");
const a = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN };
const results = {};

async function call(name, work) {
  try {
    results[name] = (await work()) ?? null;
  } catch (error) {
    results[name] = { error: String(error.message), status: error.statusCode ?? null };
  }
  return results[name];
}

async function all(iterator) {
  const items = [];
  for await (const item of iterator) items.push(item);
  return items;
}

const bytes = (length, step) => new Blob([new Uint8Array(length).map((_, index) => index * step)]);
const text = (content) => new Blob([content]);

function safetensors(names) {
  let offset = 0;
  const header = {};
  for (const name of names) {
    header[name] = { dtype: "F32", shape: [2, 3], data_offsets: [offset, offset + 24] };
    offset += 24;
  }
  const raw = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(raw.length));
  return new Blob([length, raw, new Uint8Array(offset)]);
}

async function files(me, repo) {
  const a1 = { repo, ...a };
  await call("uploadFile", async () =>
    (await hub.uploadFile({ ...a1, file: { path: "a.txt", content: text("hello") } })).commit.oid.length);
  await call("uploadFile large", async () =>
    (await hub.uploadFile({ ...a1, file: { path: "m.bin", content: bytes(50000, 7) } })).commit.oid.length);
  await call("uploadFile in parts", async () =>
    (await hub.uploadFile({ ...a1, useXet: false, file: { path: "p.bin", content: bytes(250000, 11) } })).commit.oid.length);
  await call("uploadFiles", async () => (await hub.uploadFiles({ ...a1, files: [
    { path: "f/1.txt", content: text("1") },
    { path: "empty.txt", content: text("") },
    { path: "model.safetensors", content: safetensors(["a", "b"]) },
  ] })).commit.oid.length);
  await call("uploadFilesWithProgress", async () => (await all(hub.uploadFilesWithProgress({ ...a1, files: [
    { path: "g.bin", content: bytes(1000, 3) },
  ] }))).length > 0);
  await call("commit", async () => (await hub.commit({ ...a1, title: "several", description: "words", operations: [
    { operation: "addOrUpdate", path: "c d.txt", content: text("c") },
    { operation: "delete", path: "a.txt" },
    { operation: "edit", path: "f/1.txt", originalContent: text("1"), edits: [{ start: 0, end: 1, content: text("23") }] },
  ] })).commit.oid.length);
  await call("deleteFile", async () => (await hub.deleteFile({ ...a1, path: "g.bin" })).commit.oid.length);
  await call("deleteFiles", async () => (await hub.deleteFiles({ ...a1, paths: ["m.bin"] })).commit.oid.length);
  await call("commit pull request", async () => (await hub.commit({ ...a1, title: "propose", isPullRequest: true, operations: [
    { operation: "addOrUpdate", path: "d.bin", content: bytes(2000, 5) },
  ] })).pullRequestUrl.replace(a.hubUrl, ""));
  await call("listFiles", async () => (await all(hub.listFiles({ ...a1, recursive: true, expand: true })))
    .filter((file) => file.lastCommit.title).map((file) => file.path).sort());
  await call("fileExists", () => hub.fileExists({ ...a1, path: "c d.txt" }));
  await call("fileExists not", () => hub.fileExists({ ...a1, path: "a.txt" }));
  await call("downloadFile", async () => (await hub.downloadFile({ ...a1, path: "f/1.txt" })).text());
  await call("downloadFile empty", async () => (await hub.downloadFile({ ...a1, path: "empty.txt" })).text());
  await call("downloadFile missing", () => hub.downloadFile({ ...a1, path: "never.txt" }));
  await call("downloadFile raw", async () => (await hub.downloadFile({ ...a1, path: "p.bin", raw: true })).text());
  await call("downloadFile large", async () => {
    const found = new Uint8Array(await (await hub.downloadFile({ ...a1, path: "p.bin" })).arrayBuffer());
    return [found.length, found.every((value, index) => value === (index * 11) % 256)];
  });
  await call("fileDownloadInfo", async () => (await hub.fileDownloadInfo({ ...a1, path: "p.bin" })).size);
  await call("pathsInfo", async () => (await hub.pathsInfo({ ...a1, paths: ["f", "p.bin", "none"], expand: true }))
    .map((item) => [item.path, item.type, item.lfs?.size ?? null, item.lastCommit.title]));
  await call("parseSafetensorsMetadata", async () => (await hub.parseSafetensorsMetadata({ ...a1, computeParametersCount: true }))
    .parameterCount);
  await call("downloadFileToCacheDir", async () => fs.readFileSync(
    await hub.downloadFileToCacheDir({ ...a1, path: "f/1.txt", cacheDir: folder }), "utf-8"));
  await call("snapshotDownload", async () => {
    const found = await hub.snapshotDownload({ ...a1, cacheDir: folder });
    return fs.readdirSync(found).sort();
  });
}

async function history(repo) {
  const a1 = { repo, ...a };
  await call("listCommits", async () => (await all(hub.listCommits({ ...a1, batchSize: 2 }))).map((commit) => commit.title));
  await call("countCommits", () => hub.countCommits({ ...a1 }));
  await call("createBranch", async () => { await hub.createBranch({ ...a1, branch: "dev/x" }); });
  await call("createBranch again", async () => { await hub.createBranch({ ...a1, branch: "dev/x" }); });
  await call("createBranch overwrite", async () => {
    const first = (await all(hub.listCommits({ ...a1 }))).pop().oid;
    await hub.createBranch({ ...a1, branch: "dev/x", revision: first, overwrite: true });
    return hub.countCommits({ ...a1, revision: "dev%2Fx" });
  });
  await call("createBranch empty", async () => {
    await hub.createBranch({ ...a1, branch: "bare", empty: true });
    return (await all(hub.listFiles({ ...a1, revision: "bare" }))).length;
  });
  await call("deleteBranch", async () => { await hub.deleteBranch({ ...a1, branch: "dev/x" }); });
}

async function lists(me, repo) {
  await call("repoExists", () => hub.repoExists({ repo, ...a }));
  await call("repoExists not", () => hub.repoExists({ repo: `${me}/never-made`, ...a }));
  await call("checkRepoAccess", async () => { await hub.checkRepoAccess({ repo, ...a }); });
  await call("checkRepoAccess not", () => hub.checkRepoAccess({ repo: `${me}/never-made`, ...a }));
  await call("modelInfo", async () => {
    const found = await hub.modelInfo({ name: repo.name, ...a, additionalFields: ["tags", "sha", "safetensors", "filePaths"] });
    return [found.name, found.tags, found.safetensors.total, found.filePaths.includes("p.bin"), found.gated];
  });
  await call("datasetInfo", async () => (await hub.datasetInfo({ name: `${me}/js-data`, ...a })).name);
  await call("spaceInfo", async () => (await hub.spaceInfo({ name: `${me}/js-space`, ...a })).sdk);
  await call("listModels", async () => (await all(hub.listModels({ ...a, search: { owner: me }, limit: 3,
    additionalFields: ["cardData", "safetensors"] }))).map((model) => [model.name, model.cardData?.license, model.safetensors?.total]));
  await call("listDatasets", async () => (await all(hub.listDatasets({ ...a, search: { owner: me } }))).map((item) => item.name));
  await call("listSpaces", async () => (await all(hub.listSpaces({ ...a, search: { owner: me } }))).map((item) => item.name));
  const { slug } = await call("createCollection", () => hub.createCollection({ ...a, collection: { title: "JS", namespace: me } }));
  await call("listCollections", async () => (await all(hub.listCollections({ ...a, search: { owner: [me] } })))
    .map((item) => item.title));
  await call("deleteCollection", async () => { await hub.deleteCollection({ ...a, slug }); });
  await call("listJobs", () => hub.listJobs({ ...a, namespace: me }));
  await call("createRepo bucket", () => hub.createRepo({ ...a, repo: { type: "bucket", name: `${me}/bucket` } }));
}

async function main() {
  const me = (await call("whoAmI", async () => (await hub.whoAmI(a)).name));
  const repo = { type: "model", name: `${me}/from-js` };
  await call("deleteRepo missing", async () => { await hub.deleteRepo({ repo, ...a }); });
  await call("createRepo", async () => (await hub.createRepo({ repo, ...a, license: "mit",
    files: [{ path: "first.txt", content: text("first") }] })).id);
  await call("createRepo again", () => hub.createRepo({ repo, ...a }));
  await call("createRepo dataset", async () => (await hub.createRepo({ repo: `datasets/${me}/js-data`, ...a, private: true })).id);
  await call("createRepo space", async () => (await hub.createRepo({ repo: `spaces/${me}/js-space`, ...a, sdk: "static" })).id);
  await files(me, repo);
  await history(repo);
  await lists(me, repo);
  await call("deleteRepo", async () => { await hub.deleteRepo({ repo, ...a }); return hub.repoExists({ repo, ...a }); });
  console.log(JSON.stringify(results));
}

main();
