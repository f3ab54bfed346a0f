// SPDX-License-Identifier: MIT

// go-echo: the TCP echo scenarios on Go: a goroutine per connection reads what there is and
// writes it back.
//
// Usage: go-echo --port P [--workers N] | --version
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
)

const bufferBytes = 4096

func die(what string, err error) {
	fmt.Fprintf(os.Stderr, "go-echo: %s: %v\n", what, err)
	os.Exit(1)
}

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

func main() {
	port := flag.Uint("port", 65536, "listen on 127.0.0.1 and this port; 0: one that is free")
	workers := flag.Int("workers", 1, "threads that run Go code at the same time (GOMAXPROCS)")
	version := flag.Bool("version", false, "say which Go this is")
	flag.Parse()
	if *version {
		fmt.Println("go", runtime.Version()[len("go"):])
		return
	}
	if *port > 65535 || *workers < 1 || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(1)
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
