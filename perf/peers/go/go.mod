module numio.example/go-echo

go 1.19
