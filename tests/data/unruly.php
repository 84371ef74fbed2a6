<?php
// A script that does what the subject of the mail, or the user of the recipient, says.
$what = $_POST['subject'] ?? explode('@', $_GET['rcpt_to'])[0];
switch ($what) {
    case 'good': echo isset($_GET['rcpt_to']) ? 'PASS' : 'SAVED'; break;
    case 'more': echo isset($_GET['rcpt_to']) ? 'PASSED by me' : "SAVED\nby me"; break;
    case 'size': echo 'SAVED ', strlen($_POST['body']); break;
    case 'other-size': echo 'SAVED ', strlen($_POST['body']) - 1; break;
    case 'silent': break;
    case 'exits': exit(3);
    case 'dies': no_such_function(); break;
    case 'shows-death': ini_set('display_errors', '1'); no_such_function(); break;
    case 'warns': echo $no_such_variable; echo 'no'; break;
    case 'shows-warning': ini_set('display_errors', '1'); ini_set('log_errors', '0'); echo $no_such_variable; echo isset($_GET['rcpt_to']) ? 'PASSED' : 'SAVED'; break;
    case 'warns-and-saves': echo $no_such_variable; echo 'SAVED'; break;
    case 'sleeps': sleep(30); echo 'SAVED'; break;
    case 'killed': exec('kill -9 ' . getmypid()); sleep(30); break;
    case 'killed-talking': echo str_repeat('x', 100000); flush(); exec('kill -9 ' . getmypid()); sleep(30); break;
    case 'unavailable': http_response_code(503); echo isset($_GET['rcpt_to']) ? 'PASSED' : 'SAVED'; break;
    case 'forbidden': http_response_code(403); echo 'no'; break;
    case 'created': http_response_code(201); echo 'SAVED'; break;
    case 'quota': echo "452 4.2.2 The mailbox is full\nmore"; break;
    case 'spam': echo "554 5.7.1 We do not want this"; break;
    case 'bare': echo '550'; break;
    case 'accented': echo "550 5.7.1 caf\xc3\xa9\x00\x07"; break;
    case 'mixed': echo '550 4.1.1 which'; break;
    case 'two-fifty': echo '250 2.0.0 Ok'; break;
    case 'lower': echo 'saved'; break;
    case 'space': echo ' SAVED'; break;
    case 'html': echo '<html><body>no</body></html>'; break;
    case 'reason': echo "moved to another\tcompany\r\nin 2019"; break;
    case 'babbles': echo 'SAVED '; for ($i = 0; $i < 200; $i++) { echo str_repeat('x', 100000); } break;
    case 'complains': for ($i = 0; $i < 200; $i++) { error_log(str_repeat('y', 1000)); } echo 'SAVED'; break;
    case 'talks-first': echo str_repeat(' ', 1 << 20); flush(); echo 'SAVED'; break;
    default: echo 'SAVED';
}
