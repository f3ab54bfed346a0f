module numio.example/go-peer

go 1.19
