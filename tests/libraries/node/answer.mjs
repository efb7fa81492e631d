// Answers, a JSON line each: what a provider's own library says of a signature, or signs itself.
import { createInterface } from "node:readline";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import * as octokit from "@octokit/webhooks-methods";
import * as sanity from "@sanity/webhook";
import "@shopify/shopify-api/adapters/node";
import { shopifyApi } from "@shopify/shopify-api";

const verify = {
  github: ({ secret, body, headers }) => octokit.verify(secret, body, headers["X-Hub-Signature-256"]),
  linear: ({ secret, bytes, headers }) => new LinearWebhookClient(secret).verify(bytes, headers["Linear-Signature"]),
  sanity: ({ secret, body, headers }) => sanity.isValidSignature(body, headers["sanity-webhook-signature"], secret),
  shopify: async ({ secret, body, headers }) => {
    const shopify = shopifyApi({
      apiKey: "key", apiSecretKey: secret, hostName: "shop.example.com", apiVersion: "2025-10",
      isEmbeddedApp: false, logger: { log: () => {} },
    });
    const named = {
      "X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": "hats.example.com", "X-Shopify-API-Version": "2025-10",
      "X-Shopify-Webhook-Id": "1", ...headers,
    };
    return (await shopify.webhooks.validate({ rawBody: body, rawRequest: { headers: named } })).valid;
  },
};

const sign = {
  github: async ({ secret, body }) => ({ "X-Hub-Signature-256": await octokit.sign(secret, body) }),
  sanity: async ({ secret, body, millis }) => ({
    "sanity-webhook-signature": await sanity.encodeSignatureHeader(body, millis, secret),
  }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const bytes = Buffer.from(asked.body, "base64");
  const given = { ...asked, bytes, body: bytes.toString("utf8") };
  let answer;
  try {
    answer = { ok: await (asked.sign ? sign : verify)[asked.provider](given) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
