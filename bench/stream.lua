-- Sends bytes back as they come, whether lines end in them or not.
local Stream = {}

function Stream:handle()
  for data in function() return self.request:recv(65536) end do
    if data == "" then break end
    self.request:sendall(data)
  end
end

return Stream
