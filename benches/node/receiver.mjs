// smtp-server of npm: reads a message, throws it away and answers 250. `receiver.mjs PORT`
import { SMTPServer } from "smtp-server";

const server = new SMTPServer({
  disabledCommands: ["AUTH", "STARTTLS"],
  disableReverseLookup: true, // a question to the name server a connection is not what is measured
  logger: false,
  onData(stream, session, done) {
    stream.on("end", done);
    stream.resume();
  },
});
server.on("error", () => {}); // a client that hangs up
server.listen(Number(process.argv[2]), "127.0.0.1");
