// Be one device at its hub with the unmodified Azure Node.js device SDK over MQTT; one JSON line for everything that
// happens.
//
// Connects, sends one event with properties, reads its twin and reports a property, then waits for a cloud-to-device
// message, a change of desired properties and a call of method `reboot`, and answers that. Exit code 0 in any case: the
// lines say what happened. Ends when stdin is closed.

'use strict';

const fs = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');
const { parseArgs } = require('node:util');

// The SDK is installed outside the source tree: SDK_NODE_DIR holds its node_modules.
const sdk = createRequire(path.join(process.env.SDK_NODE_DIR, 'package.json'));
const { NoRetry } = sdk('azure-iot-common');
const { Client, Message } = sdk('azure-iot-device');
const { Mqtt } = sdk('azure-iot-device-mqtt');

const { values: argument } = parseArgs({
  options: {
    host: { type: 'string' }, // may be host:port
    'device-id': { type: 'string' },
    'certificate-file': { type: 'string' }, // PEM chain, leaf first
    'certificate-key-file': { type: 'string' },
    'key-file': { type: 'string' }, // base64 of the device's symmetric key
  },
});

function say(event, details) {
  fs.writeSync(1, `${JSON.stringify({ event, ...details })}\n`);
}

async function makeClient() {
  const device = `HostName=${argument.host};DeviceId=${argument['device-id']}`;
  if (argument['key-file'] !== undefined) {
    const key = fs.readFileSync(argument['key-file'], 'utf8').trim();
    return Client.fromConnectionString(`${device};SharedAccessKey=${key}`, Mqtt);
  }
  const client = Client.fromConnectionString(`${device};x509=true`, Mqtt);
  await client.setOptions({
    cert: fs.readFileSync(argument['certificate-file'], 'utf8'),
    key: fs.readFileSync(argument['certificate-key-file'], 'utf8'),
  });
  return client;
}

function listen(client) {
  client.on('message', (message) => {
    say('message', {
      payload: message.getData().toString(),
      properties: Object.fromEntries(message.properties.propertyList.map(({ key, value }) => [key, value])),
      messageId: message.messageId,
      contentType: message.contentType,
    });
    client.complete(message);
  });
  client.onDeviceMethod('reboot', (request, response) => {
    say('method', { name: request.methodName, payload: request.payload });
    response.send(200, { rebooting: true });
  });
  client.on('disconnect', () => say('disconnected'));
}

function report(twin, properties) {
  return new Promise((resolve, reject) => {
    twin.properties.reported.update(properties, (error) => (error ? reject(error) : resolve()));
  });
}

async function live(client) {
  await client.open();
  say('connected');
  listen(client);
  const message = new Message('{"t":21.5}');
  message.messageId = 'm-1';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.properties.add('line', '4 & 5/6');
  await client.sendEvent(message);
  const twin = await client.getTwin();
  const { update: _, ...reported } = twin.properties.reported;
  say('twin', { twin: { desired: twin.properties.desired, reported } });
  let isFirst = true;
  twin.on('properties.desired', (patch) => {
    if (!isFirst) say('desired', { patch });
    isFirst = false; // the SDK tells what it has read before it tells what has changed
  });
  await report(twin, { rpm: 900, old: null });
  say('ready');
}

async function main() {
  const client = await makeClient();
  client.setRetryPolicy(new NoRetry());
  try {
    await live(client);
  } catch (error) {
    say('error', { error: error.name, message: error.message });
    process.exit(0);
  }
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
}

main();
