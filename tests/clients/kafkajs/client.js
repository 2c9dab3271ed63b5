// KafkaJS. The contract is in ../README.md.
"use strict";

const fs = require("node:fs");
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require("kafkajs");
const { ZstdCodec } = require("zstd-codec");

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};
// What one request carries, at most, unless a record is larger: well below the megabyte that a batch may have.
const REQUEST_BYTES = 400_000;

async function main([command, address, topic, file, last]) {
  const zstd = await new Promise((resolve) => ZstdCodec.run(resolve));
  CompressionCodecs[CODECS.snappy] = require("kafkajs-snappy");
  CompressionCodecs[CODECS.lz4] = new (require("@2l/kafkajs-lz4"))().codec;
  CompressionCodecs[CODECS.zstd] = () => ({
    compress: async (encoder) => Buffer.from(new zstd.Streaming().compress(encoder.buffer)),
    decompress: async (buffer) => Buffer.from(new zstd.Streaming().decompress(buffer)),
  });
  const kafka = new Kafka({ clientId: "kafkajs", brokers: [address], logLevel: logLevel.ERROR });
  await { produce, consume, group }[command](kafka, topic, file, last);
}

async function produce(kafka, topic, file, codec) {
  const producer = kafka.producer();
  await producer.connect();
  const data = fs.readFileSync(file);
  let messages = [];
  let bytes = 0;
  const send = async () => {
    if (messages.length > 0) {
      await producer.send({ topic, acks: -1, compression: CODECS[codec], messages });
    }
    [messages, bytes] = [[], 0];
  };
  for (let at = 0; at < data.length; ) {
    const lineEnd = data.indexOf("\n", at);
    const fields = data.toString("ascii", at, lineEnd).split(" ");
    const [keyBytes, valueBytes] = [Number(fields[3]), Number(fields[4])];
    const valueAt = lineEnd + 1 + Math.max(keyBytes, 0);
    const end = valueAt + Math.max(valueBytes, 0) + 1;
    if (bytes + end - at > REQUEST_BYTES) {
      await send();
    }
    messages.push({
      partition: Number(fields[0]),
      timestamp: fields[2],
      key: keyBytes < 0 ? null : data.subarray(lineEnd + 1, valueAt),
      value: valueBytes < 0 ? null : data.subarray(valueAt, end - 1),
      headers: decode(fields[5]),
    });
    bytes += end - at;
    at = end;
  }
  await send();
  await producer.disconnect();
}

async function consume(kafka, topic, file, count) {
  // Without a group it cannot consume: this one has a single member and commits nothing.
  const consumer = kafka.consumer({ groupId: `alone-${topic}`, maxBytesPerPartition: 1 << 20 });
  const out = fs.openSync(file, "w");
  let left = Number(count);
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    const eachBatch = async ({ batch }) => {
      write(out, batch);
      left -= batch.messages.length;
      if (left <= 0) {
        resolve();
      }
    };
    consumer.run({ autoCommit: false, eachBatch }).catch(reject);
  });
  await consumer.disconnect();
}

async function group(kafka, topic, file, groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 1000 });
  const out = fs.openSync(file, "w");
  process.on("SIGTERM", () => consumer.disconnect().then(() => process.exit(0)));
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  // A batch is committed when it has been written.
  await consumer.run({
    autoCommitThreshold: 1,
    eachBatch: async ({ batch }) => write(out, batch),
  });
}

function write(out, batch) {
  const parts = [];
  for (const { offset, timestamp, key, value, headers } of batch.messages) {
    const line = [batch.partition, offset, timestamp, length(key), length(value), encode(headers)].join(" ");
    parts.push(Buffer.from(`${line}\n`), key ?? Buffer.alloc(0), value ?? Buffer.alloc(0), Buffer.from("\n"));
  }
  fs.writeSync(out, Buffer.concat(parts));
}

function length(field) {
  return field === null ? -1 : field.length;
}

function encode(headers) {
  const pairs = Object.entries(headers).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));
  return pairs.map(([name, value]) => `${name}=${value.toString("hex")}`).join(",") || "-";
}

function decode(text) {
  const headers = {};
  for (const header of text === "-" ? [] : text.split(",")) {
    const [name, value] = header.split("=");
    (headers[name] ??= []).push(Buffer.from(value, "hex"));
  }
  return headers;
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
