// Register one device with the unmodified Azure Node.js device SDK over MQTT and print one JSON line.
//
// The service's root certificate comes from NODE_EXTRA_CA_CERTS, as the SDK has no option for it.
// Exit code 0 whether or not the service assigned the device: the line says which.

'use strict';

const fs = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');
const { parseArgs } = require('node:util');

// The SDK is installed outside the source tree: SDK_NODE_DIR holds its node_modules.
const sdk = createRequire(path.join(process.env.SDK_NODE_DIR, 'package.json'));
const { ProvisioningDeviceClient } = sdk('azure-iot-provisioning-device');
const { Mqtt } = sdk('azure-iot-provisioning-device-mqtt');
const { SymmetricKeySecurityClient } = sdk('azure-iot-security-symmetric-key');
const { X509Security } = sdk('azure-iot-security-x509');

const { values: argument } = parseArgs({
  options: {
    host: { type: 'string' }, // may be host:port
    'id-scope': { type: 'string' },
    'registration-id': { type: 'string' },
    'certificate-file': { type: 'string' }, // PEM chain, leaf first
    'certificate-key-file': { type: 'string' },
    'key-file': { type: 'string' }, // base64 of the device's symmetric key
    payload: { type: 'string' }, // JSON
  },
});

function makeSecurityClient() {
  const registrationId = argument['registration-id'];
  if (argument['key-file'] !== undefined) {
    return new SymmetricKeySecurityClient(registrationId, fs.readFileSync(argument['key-file'], 'utf8').trim());
  }
  return new X509Security(registrationId, {
    cert: fs.readFileSync(argument['certificate-file'], 'utf8'),
    key: fs.readFileSync(argument['certificate-key-file'], 'utf8'),
  });
}

function describeError(error) {
  return { error: error.name, message: error.message, result: error.result };
}

async function main() {
  const client = ProvisioningDeviceClient.create(
    argument.host,
    argument['id-scope'],
    new Mqtt(),
    makeSecurityClient(),
  );
  if (argument.payload !== undefined) {
    client.setProvisioningPayload(JSON.parse(argument.payload));
  }
  const started = process.hrtime.bigint();
  const line = await client.register().catch(describeError);
  line.elapsed_s = Number(process.hrtime.bigint() - started) / 1e9;
  fs.writeSync(1, `${JSON.stringify(line)}\n`);
  process.exit(0); // after a refusal the SDK keeps its connection open
}

main();
