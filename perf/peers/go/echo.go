// SPDX-License-Identifier: MIT

package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
)

const bufferBytes = 4096

func echo(conn *net.TCPConn) {
	defer conn.Close()
	buffer := make([]byte, bufferBytes)
	for {
		got, err := conn.Read(buffer)
		if err != nil { // the client has gone, in peace or not
			return
		}
		if _, err = conn.Write(buffer[:got]); err != nil {
			return
		}
	}
}

// The TCP echo scenarios: a goroutine per connection reads what there is and writes it back.
func serveEcho(args []string) {
	flags := flag.NewFlagSet("go-peer echo", flag.ExitOnError)
	port := flags.Uint("port", 65536, "listen on 127.0.0.1 and this port; 0: one that is free")
	workers := flags.Int("workers", 1, "threads that run Go code at the same time (GOMAXPROCS)")
	_ = flags.Parse(args) // it exits itself
	if *port > 65535 || *workers < 1 || flags.NArg() != 0 {
		flags.Usage()
		os.Exit(2)
	}
	runtime.GOMAXPROCS(*workers)
	at := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(*port)}
	listener, err := net.ListenTCP("tcp4", &at)
	if err != nil {
		die("listen", err)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.AcceptTCP()
		if err != nil {
			die("accept", err)
		}
		if err = conn.SetNoDelay(true); err != nil {
			die("TCP_NODELAY", err)
		}
		go echo(conn)
	}
}
