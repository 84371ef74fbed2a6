<?php
// Takes a recipient that is in a list: a file with an address in each line.
declare(strict_types=1);

$list = getenv('RECIPIENTS') ?: __DIR__ . '/recipients.txt';
$known = @file($list, FILE_IGNORE_NEW_LINES | FILE_SKIP_EMPTY_LINES);
if ($known === false) {
    // Passing: whoever is refused for good because a file is away has lost a mail.
    echo '451 4.3.0 Recipients cannot be looked up now';
    exit;
}
$recipient = strtolower($_GET['rcpt_to'] ?? '');
echo in_array($recipient, array_map('strtolower', $known), true) ? 'PASSED' : 'no such mailbox';
