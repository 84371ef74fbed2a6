// Delivers the message on standard input by Nodemailer. Fails unless the server's certificate is
// good and the mail was taken.
//
//   node send.js (starttls | tls) HOST PORT CA-FILE SENDER RECIPIENT [OPTIONS]
//
// OPTIONS are JSON: more options of the transport, and `dsn`, which is what is asked of notifications.
"use strict";

const fs = require("node:fs");
const nodemailer = require("nodemailer");

const [mode, host, port, ca, from, to, options = "{}"] = process.argv.slice(2);
const { dsn, ...more } = JSON.parse(options);
const transport = nodemailer.createTransport({
  host,
  port: Number(port),
  name: "client.example.org",
  secure: mode === "tls",
  requireTLS: mode === "starttls",
  tls: { ca: fs.readFileSync(ca) },
  connectionTimeout: 20_000,
  greetingTimeout: 20_000,
  socketTimeout: 20_000,
  ...more,
});

transport.sendMail({ envelope: { from, to: [to] }, dsn, raw: fs.readFileSync(0) }).then(
  (info) => {
    console.log(info.response);
    transport.close();
  },
  (error) => {
    console.error(String(error));
    process.exitCode = 1;
  },
);
