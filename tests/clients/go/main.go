// Command client delivers the message on standard input by Go's net/smtp. It fails unless the
// server's certificate is good and the mail was taken. With a name and a password it says AUTH PLAIN.
//
//	client (starttls | tls) HOST PORT CA-FILE SENDER RECIPIENT [USER PASSWORD]
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/smtp"
	"os"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 7 && len(os.Args) != 9 {
		log.Fatal("usage: client (starttls | tls) HOST PORT CA-FILE SENDER RECIPIENT [USER PASSWORD]")
	}
	var auth smtp.Auth
	if len(os.Args) == 9 {
		auth = smtp.PlainAuth("", os.Args[7], os.Args[8], os.Args[2])
	}
	if err := deliver(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6], auth); err != nil {
		log.Fatal(err)
	}
}

func deliver(mode, host, port, ca, sender, recipient string, auth smtp.Auth) error {
	config, err := trusting(ca, host)
	if err != nil {
		return err
	}
	client, err := connect(mode, host, port, config)
	if err != nil {
		return err
	}
	defer client.Close()
	if auth != nil {
		if err := client.Auth(auth); err != nil {
			return err
		}
	}
	if err := client.Mail(sender); err != nil {
		return err
	}
	if err := client.Rcpt(recipient); err != nil {
		return err
	}
	data, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(data, os.Stdin); err != nil {
		return err
	}
	if err := data.Close(); err != nil {
		return err
	}
	return client.Quit()
}

// connect says EHLO; what it returns is in TLS.
func connect(mode, host, port string, config *tls.Config) (*smtp.Client, error) {
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), 20*time.Second)
	if err != nil {
		return nil, err
	}
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	if mode == "tls" {
		connection = tls.Client(connection, config)
	}
	client, err := smtp.NewClient(connection, host)
	if err != nil {
		return nil, err
	}
	if err := client.Hello("client.example.org"); err != nil {
		return nil, err
	}
	if mode == "starttls" {
		return client, client.StartTLS(config)
	}
	return client, nil
}

func trusting(file, host string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New(file + ": no certificate in it")
	}
	return &tls.Config{RootCAs: roots, ServerName: host}, nil
}
