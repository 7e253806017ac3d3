// A real OpenID provider on loopback: npm's oidc-provider, with its own login form.
//
// In the environment: PROVIDER_PORT, PROVIDER_REDIRECT (the gateway's address). It prints one line when it listens.
// Whoever logs in gives any password and, as the name, one of PEOPLE.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const port = Number(process.env.PROVIDER_PORT);
const gateway = process.env.PROVIDER_REDIRECT;
const issuer = `http://127.0.0.1:${port}`;

const PEOPLE = {
  ann: ["reviewer", "keeper"],
  bob: ["reviewer", "keeper", "controller"],
  fault: ["reviewer", "keeper", "app"],
  ada: ["admin"],
  aud: ["auditor"],
  stranger: ["sales"],
};

function key() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...privateKey.export({ format: "jwk" }), use: "sig", alg: "ES256", kid: randomUUID() };
}

// Rotated keys: the new one signs, the old ones are gone.
let provider;
function make() {
  provider = new Provider(issuer, {
    clients: [
      {
        client_id: "sallyport",
        client_secret: "a secret between two programs",
        redirect_uris: [`${gateway}/login/callback`],
        post_logout_redirect_uris: [`${gateway}/login/out`],
        backchannel_logout_uri: `${gateway}/login/backchannel`,
        backchannel_logout_session_required: true,
        id_token_signed_response_alg: "ES256",
        response_types: ["code"],
        grant_types: ["authorization_code"],
      },
    ],
    jwks: { keys: [key()] },
    enabledJWA: { idTokenSigningAlgValues: ["ES256"] },
    cookies: { keys: ["for tests"] },
    pkce: { required: () => true },
    conformIdTokenClaims: false,
    claims: { openid: ["sub"], profile: ["name", "roles", "preferred_username"] },
    findAccount: (_, id) =>
      PEOPLE[id] && {
        accountId: id,
        claims: () => ({ sub: id, name: id.toUpperCase(), preferred_username: id, roles: PEOPLE[id] }),
      },
    features: {
      devInteractions: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      backchannelLogout: { enabled: true },
    },
    // Asked once in these tests is enough.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope("openid profile");
      await grant.save();
      return grant;
    },
  });
}

make();
createServer((request, response) => {
  if (request.method === "POST" && request.url === "/rotate") {
    make();
    response.end("rotated\n");
    return;
  }
  provider.callback()(request, response);
}).listen(port, "127.0.0.1", () => console.log(`listening on ${issuer}`));
