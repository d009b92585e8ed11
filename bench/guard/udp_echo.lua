-- Sends every datagram back.
local Echo = {}

function Echo:handle() self.wfile:write(self.packet) end

return Echo
