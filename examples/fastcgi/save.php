<?php
// Saves a mail as two files in a folder: QUEUED_ID.eml, the mail, and QUEUED_ID.json, its envelope.
// PHP-FPM runs it, no web server does: it need not, and should not, lie where one finds it.
declare(strict_types=1);

// What guerrilla tells its client. Everything but SAVED means that the mail is not saved.
function answer(string $reply): never
{
    echo $reply;
    exit;
}

// Writes a file so that it is there whole, or not at all, even if the power fails right after.
function save(string $path, string $octets): bool
{
    $partial = $path . '.' . getmypid() . '.tmp';
    $file = fopen($partial, 'wb');
    if ($file === false) {
        return false;
    }
    $written = fwrite($file, $octets) === strlen($octets) && fsync($file);
    if (fclose($file) && $written && rename($partial, $path)) {
        return true;
    }
    unlink($partial);
    return false;
}

// PHP may leave out what is over its limits, and runs the script all the same.
$body = $_POST['body'] ?? '';
if (!isset($_POST['body_size']) || (int) $_POST['body_size'] !== strlen($body)) {
    answer('451 4.3.0 The mail did not come whole');
}
$recipients = [];
for ($i = 0; isset($_POST["rcpt_to_$i"]); $i++) {
    $recipients[] = $_POST["rcpt_to_$i"];
}
$envelope = [
    'queued_id' => $_POST['queued_id'],
    'remote_ip' => $_POST['remote_ip'],
    'helo' => $_POST['helo'],
    'tls' => $_POST['tls_on'] === 'true',
    'mail_from' => $_POST['mail_from'],
    'rcpt_to' => $recipients,
    'subject' => $_POST['subject'],
];

// A mail that comes again has the same queued_id, so it becomes the same files, and no second copy.
$name = $_POST['queued_id'];
if (preg_match('/^[0-9A-Za-z]{1,64}$/', $name) !== 1) {
    answer('451 4.3.0 No queued_id');
}
$folder = getenv('MAIL_FOLDER') ?: __DIR__ . '/mail';
$json = json_encode($envelope, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
// The names of the files are in the folder, which has to be on the disk as well.
$entries = @fopen($folder, 'rb');
if ($entries === false) {
    answer('451 4.3.0 No folder to save into');
}
if (!save("$folder/$name.json", $json . "\n") || !save("$folder/$name.eml", $body) || !fsync($entries)) {
    answer('451 4.3.0 Not saved');
}
answer('SAVED ' . strlen($body));
